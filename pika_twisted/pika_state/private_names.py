"""All that is used of pika's private names, and whether the pika that is there has it.

A release of pika that drops one of these names is refused at import, not by an AttributeError in
the night. The unit suite is run with pika 1.3.2, 1.4.4, 1.5.0rc1 and its main branch; all of them
have all of `USED`, and a test finds out what is used and not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, ModuleType

import pika
import pika.channel
import pika.connection
import pika.heartbeat

from pika_twisted import _requirements

#: pika's private names: what the modules of this folder override, for pika to call, or call and
#: read themselves.
#: A class by its module and name, its methods, and what its instances hold.
USED: dict[tuple[ModuleType, str], tuple[str, str]] = {
    (pika.connection, "Connection"): (
        """_adapter_add_callback_threadsafe _adapter_call_later _adapter_connect_stream
        _adapter_disconnect_stream _adapter_emit_data _adapter_remove_timeout _add_channel_callbacks
        _create_channel _create_heartbeat_checker _has_pending_callbacks _init_connection_state
        _next_channel_number _on_channel_cleanup _on_close_ready _on_connection_close_from_broker
        _on_connection_open_ok _on_connection_tune _on_data_available _on_stream_connected
        _on_stream_terminated _output_marshaled_frames _process_callbacks _process_frame
        _remove_heartbeat _rpc _send_method _set_connection_state _terminate_stream""",
        "_channels _error _heartbeat_checker _opened",
    ),
    (pika.channel, "Channel"): (
        """_STATE_NAMES _cleanup _cleanup_consumer_ref _generate_consumer_tag _handle_content_frame
        _on_cancel _on_close_meta _on_closeok _on_deliver _on_getempty _on_getok
        _on_synchronous_complete _raise_if_not_open _rpc _set_state _transition_to_closed""",
        "_blocked _blocking _closing_reason _consumers _content_assembler _state",
    ),
    (pika.heartbeat, "HeartbeatChecker"): (
        "_send_heartbeat _start_send_timer",
        "_connection _heartbeat_frames_received _send_interval _timeout",
    ),
}


def missing_names() -> Iterator[str]:
    """Those of `USED` that the imported pika doesn't have."""
    for (module, class_name), (methods, attributes) in USED.items():
        kind = getattr(module, class_name, object)
        for name in methods.split():
            if not hasattr(kind, name):
                yield f"{class_name}.{name}"
        known = set(names_in(kind))
        for name in attributes.split():
            if name not in known:
                yield f"{class_name}.{name}"


def names_in(kind: type) -> Iterator[str]:
    """The attributes of a class, and of its instances: what its methods read or set."""
    for name, value in vars(kind).items():
        yield name
        function = value.fget if isinstance(value, property) else value
        if isinstance(function, FunctionType):
            yield from function.__code__.co_names


lacking = list(missing_names())
if lacking:
    raise _requirements.refuse(lacking, pika.__version__, pika.__file__)
