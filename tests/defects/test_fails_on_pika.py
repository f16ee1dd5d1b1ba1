"""The self-check: each test of this folder fails on pika 1.4.4's own adapter, for its row's reason.

A child process runs the folder against pika's adapter; each test named here must have failed there
with a message that shows the defect (an expression is searched for in it), so that neither a
mistake in a test nor a name that pika's adapter lacks can pass for the defect. No row is exempt.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pika
import pytest

# The child process takes 10 s; much more under a sanitizer, or on a machine with much else to do.
pytestmark = pytest.mark.timeout(1000)

FOLDER = Path(__file__).resolve().parent

# What pika's adapter does not have at all, where that is the row: D29, D48 and D52.
NOT_THERE = (
    r"no way to wait|only through _impl|ready is None once|TwistedChannel has no|texts point"
)
RAISED = r"raised .* instead of failing its Deferred"
LOST = r"^AssertionError: assert \[.*\] == \["  # fewer messages than were delivered
NEVER = r"never fired"
NOT_WRITTEN = r"the client did not write"
TWICE = r"^twisted.internet.defer.AlreadyCalledError"
GROWS = r"^assert \d+\.\d+ < \(2"

ROWS: dict[str, dict[str, str]] = {
    "d01": {
        "returns_are_matched_to_their_publish": r"failed with UnroutableError",
        "two_returns_before_one_multiple_ack": r"^assert \[0\] == \[1, 3\]",
        "equal_messages_are_matched_first_in_first_out": r"failed with UnroutableError",
        "a_return_that_matches_nothing_blames_nobody": r"failed with UnroutableError",
        "a_burst_with_every_second_message_unroutable": r"of 3000 publishes were told the wrong",
    },
    "d02": {
        "tags_are_counted_from_confirm_select": r"the confirm of the early publish was taken",
        "a_publish_written_before_a_queued_confirm_select_has_no_tag": r"b'two' fired before",
    },
    "d03": {
        "a_return_from_before_confirms_is_not_blamed_on_the_next_publish": r"UnroutableError",
        "not_even_when_the_two_messages_are_equal": r"isinstance\(None, .*Ack",
    },
    "d04": {
        "two_confirm_delivery_in_flight": NEVER,
        "confirm_delivery_again_later_is_harmless": NEVER,
    },
    "d05": {
        "a_closed_queue_keeps_what_was_delivered": LOST,
        "iteration_hands_out_what_is_pending_then_ends_after_our_cancel": LOST,
        "get_many_hands_out_what_is_pending_then_the_reason": LOST,
        "an_auto_acked_backlog_survives_its_channel": LOST,
        "unacked_messages_of_a_dead_channel_are_not_handed_out": LOST,
        "a_cancel_by_the_broker_is_raised_after_the_backlog": LOST,
        "a_queue_of_ones_own": LOST,
    },
    "d06": {
        "each_of_two_cancels_waits_for_its_own_answer": r"second cancel fired on the first one's",
    },
    "d07": {
        "cancelling_an_unknown_tag_is_sent_and_answered": NOT_WRITTEN,
        "cancelling_twice_never_hangs": NEVER,
    },
    "d08": {
        "a_cancelled_call_does_not_disturb_the_channels_close": TWICE,
        "a_cancelled_call_does_not_disturb_the_connections_end": TWICE,
        "cancelling_after_the_end_is_harmless": r"_calls$",
        "a_late_select_ok_still_turns_confirms_on": r"the client does not wait for it",
        "a_late_cancel_ok_still_closes_the_queue": NEVER,
        "a_late_declare_ok_still_names_the_server_named_queue": r"\.closed$",
        "a_late_delete_ok_still_closes_the_queue": r"\.closed$",
        "a_channel_opened_for_nobody_is_closed": NOT_WRITTEN,
    },
    "d09": {"a_cancelled_channel_call_does_not_disturb_the_connections_end": TWICE},
    "d10": {"a_basic_get_that_fails_at_once_frees_its_slot": r"DuplicateGetOkCallback"},
    "d11": {
        "the_message_of_a_cancelled_basic_get_is_requeued": r"assert \[\] == \[\(5, True\)\]",
        "a_late_get_empty_is_ignored": TWICE,
        "an_auto_acked_message_of_a_cancelled_basic_get_is_kept": NEVER,
    },
    "d12": {
        "deliveries_between_cancel_and_cancel_ok_reach_the_queue": LOST + r"|Basic\.Reject",
    },
    "d13": {
        "a_cancelled_basic_consume_leaves_no_consumer": NOT_WRITTEN,
        "auto_acked_messages_of_a_cancelled_basic_consume_are_counted_in_the_log": NOT_WRITTEN,
    },
    "d14": {"two_flow_calls_in_flight_both_fire": NEVER},
    "d15": {"callback_deferred_fails_with_the_channel": NEVER},
    "d16": {"callback_deferred_fires_once": TWICE},
    "d17": {"observing_a_content_method_steals_nothing": r"^AttributeError: 'NoneType'.* 'method'"},
    "d18": {
        "the_real_reason_is_both_pikas_and_twisteds": (
            r"Connection(Done|Lost|Aborted)\(.*\) is no|^pika.exceptions.InvalidFrameError"
        ),
    },
    "d19": {
        "a_wrong_password_is_told_with_the_brokers_words": r"AMQPConnectionError: \(1,\)",
        "a_missing_vhost_is_told_with_the_brokers_words": r"AMQPConnectionError: \(1,\)",
        "another_protocol_version_is_told": r"AMQPConnectionError: \(1,\)",
        "a_stream_that_ends_in_the_handshake": r"AMQPConnectionError: \(1,\)|^assert 1 == 0",
    },
    "d20": {
        "a_silent_peer_is_aborted": r"loseConnection waits",
        "a_blocked_connection_is_aborted_after_its_timeout": r"loseConnection waits",
    },
    "d21": {"connection_close_is_answered": NOT_WRITTEN},
    "d22": {
        "a_queued_call_that_cannot_be_encoded_fails_at_the_call": NEVER,
        "a_queued_call_is_encoded_as_it_was_called": r"'x-max-length': 20",
    },
    "d23": {"a_channel_refused_before_open_ok_fails": NEVER},
    "d24": {"a_channel_number_in_use_is_refused": NEVER},
    "d25": {"an_exception_in_a_return_callback_is_logged": r"exception left dataReceived"},
    "d26": {
        "the_empty_name_is_the_last_declared_queue": NEVER,
        "deleted_as_the_empty_name": r"\.closed$",
    },
    "d27": {"the_documented_loop_takes_any_backlog_in_order": r"^AssertionError: \d\d\d taken"},
    "d28": {
        "publishing_from_a_close_handler_fails_with_the_reason": r"'NoneType\\?' object.*'write",
    },
    "d29": {
        "readiness_and_end_can_be_awaited_at_any_time": NOT_THERE,
        "a_failed_handshake_fails_every_waiter": NOT_THERE,
    },
    "d30": {
        "closing_twice_returns_a_deferred_each_time": RAISED,
        "closing_before_connecting": RAISED,
        "closing_during_the_handshake": r"None is no Deferred",
    },
    "d31": {"a_channel_of_a_connection_that_is_not_open": RAISED},
    "d32": {
        "publishing_on_a_closing_channel_fails_its_deferred": RAISED,
        "an_argument_that_cannot_be_encoded_fails_the_deferred": RAISED,
    },
    "d33": {"acking_on_a_closed_channel_names_the_reason": r"'406' in 'Channel is closed\.'"},
    "d34": {"calls_that_fail_at_once_leave_nothing_in_the_log": r"^assert 3 == 0"},
    "d35": {"the_queue_name_index_shrinks": r"assert 20 == 0"},
    "d36": {"a_queue_closed_by_its_user_cancels_its_consumer": NOT_WRITTEN},
    "d37": {"waiters_fail_in_the_order_they_came": r"\[3, 2, 1, 0\] == \[0, 1, 2, 3\]"},
    "d38": {
        "close_without_a_reason_never_leaves_the_queue_half_closed": r"NoCurrentExceptionError",
    },
    "d39": {
        "waiting_on_a_closed_thing_does_not_grow_its_traceback": r"traceback grew from 3 to 150",
        "every_deferred_has_an_exception_of_its_own": r"assert 1 == 4",
    },
    "d40": {
        "importing_installs_no_reactor": r"a reactor is installed",
        "the_transports_reactor_is_used_when_none_is_given": r"runs on another reactor",
    },
    "d41": {
        "cancelling_ready_drops_the_connection": r"the connection is open and nobody's",
        "cancelling_when_ready_drops_only_that_waiter": NOT_THERE + r"|only ready",
    },
    "d42": {"basic_get_on_a_closing_channel_sends_nothing": r"the client wrote \['Basic\.Get'\]"},
    "d43": {"a_failed_basic_consume_leaves_nothing_behind": r"assert \['t'\] == \[\]"},
    "d44": {"a_deleted_queues_consumers_are_not_listed": r"assert \['a', 'b', 'c'\] == \['c'\]"},
    "d45": {
        "a_frame_above_frame_max_is_refused_at_its_seventh_byte": NOT_WRITTEN,
        "the_limit_is_the_whole_frame": NOT_WRITTEN,
    },
    "d46": {
        "content_out_of_order_is_refused": NOT_WRITTEN + r"|^AttributeError: 'NoneType'.*body_size",
    },
    "d47": {
        "a_paused_transport_is_not_a_silent_peer": r"the client killed its own connection",
        "a_large_frame_that_trickles_in_is_not_silence": r"bytes were coming in all the time",
    },
    "d48": {
        "a_publish_is_one_write": r"^AssertionError: assert \(?\(?\d+ - \d+\)? == 1|assert 3 == 1",
        "a_publisher_can_wait_for_the_transport_to_drain": NOT_THERE,
        "waiting_to_drain_ends_with_the_connection": NOT_THERE,
        "blocked_and_unblocked_are_told": NOT_THERE,
    },
    "d49": {"one_large_read_costs_in_proportion_to_its_size": GROWS},
    "d50": {
        "taking_a_message_costs_the_same_whatever_the_backlog": GROWS,
        "giving_up_a_get_costs_the_same_however_many_wait": GROWS,
    },
    "d50b": {"confirming_costs_the_same_however_many_are_outstanding": GROWS},
    "d51": {
        "the_seeds_defaults_are_there": r"inspect\._empty",
        "no_delivery_tag_means_zero": r"delivery_tag=None is refused",
    },
    "d52": {
        "channel_callbacks_get_the_wrapper": NOT_THERE,
        "a_callback_can_be_permanent": NOT_THERE,
        "the_secret_can_be_updated": NOT_THERE,
    },
    "d53": {
        "a_lost_connection_is_a_closed_channel_to_its_waiters": (
            r"get: Connection(Done|Lost|Aborted)|^pika.exceptions.InvalidFrameError"
        ),
    },
    "d54": {"a_cancel_without_answer_leaves_no_tag_behind": NOT_WRITTEN},
    "d55": {
        "what_rabbitmq_closes_the_connection_for_fails_at_the_call": r"the client wrote \['",
    },
}


@pytest.fixture(scope="module")
def on_pika(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """test function -> {its full id: failure message, empty where it passed}, on pika's adapter."""
    if not pika.__version__.startswith("1.4."):
        pytest.skip(f"the rows are about pika 1.4, this is {pika.__version__}")
    report = tmp_path_factory.mktemp("on_pika") / "report.json"
    environment = {
        **os.environ,
        "PIKA_TWISTED_TEST_ADAPTER": "pika",
        "PIKA_TWISTED_TEST_REPORT": str(report),
    }
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--ignore", str(FOLDER / Path(__file__).name), str(FOLDER)],
        cwd=FOLDER.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    results: dict[str, dict[str, str]] = {}
    for test, message in json.loads(report.read_text("utf-8")).items():
        name = test.partition("::")[2]
        results.setdefault(name.partition("[")[0], {})[name] = message
    return results


def test_every_row_is_listed() -> None:
    expected = {f"d{number:02d}" for number in range(1, 56)} | {"d50b"}
    assert set(ROWS) == expected


def test_every_test_belongs_to_a_row(on_pika: dict[str, dict[str, str]]) -> None:
    listed = {f"test_{row}_{test}" for row, tests in ROWS.items() for test in tests}
    assert set(on_pika) == listed


@pytest.mark.parametrize("row", sorted(ROWS))
def test_row_fails_on_pikas_adapter(row: str, on_pika: dict[str, dict[str, str]]) -> None:
    for test, reason in ROWS[row].items():
        for name, message in on_pika[f"test_{row}_{test}"].items():
            assert message, f"{name} passes on pika's adapter"
            assert re.search(reason, message, re.DOTALL), f"{name} failed with {message[:500]}"
