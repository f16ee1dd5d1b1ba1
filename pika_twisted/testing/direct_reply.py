"""Direct reply-to: answers of RPC servers without a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika_twisted.testing.encoding import copied_properties
from pika_twisted.testing.message import Message
from pika_twisted.testing.refusal import Refusal, no_queue

if TYPE_CHECKING:
    from pika_twisted.testing.channel import ServerChannel

NAME = "amq.rabbitmq.reply-to"


def is_reply_name(name: str) -> bool:
    """Tell whether a queue's name is the pseudo-queue, or an address that it gave."""
    return name == NAME or name.startswith(f"{NAME}.")


def check_declare(channel: ServerChannel, name: str) -> None:
    """Answer a declaration, with which an RPC server asks whether a client is still there.

    :raises Refusal: 404, it is not
    """
    if name != NAME and name not in channel.broker.reply_addresses:
        raise no_queue(channel.vhost.name, name)


def consume(channel: ServerChannel, tag: str, no_ack: bool) -> None:
    """Subscribe a channel to its replies.

    :raises Refusal: with acks, or twice
    """
    if not no_ack:
        raise Refusal(406, "reply consumer cannot acknowledge")
    if channel.reply_address is not None:
        raise Refusal(406, "reply consumer already set")
    address = channel.broker.generated_name(f"{NAME}.")
    channel.broker.reply_addresses[address] = (channel, tag)
    channel.reply_address, channel.reply_tag = address, tag


def end(channel: ServerChannel) -> None:
    """The channel is gone, or its subscription."""
    if channel.reply_address is not None:
        channel.broker.reply_addresses.pop(channel.reply_address, None)
        channel.reply_address = channel.reply_tag = None


def with_address(channel: ServerChannel, properties: Any) -> Any:
    """Return properties with the address that stands for the channel of a request.

    :raises Refusal: the channel has not subscribed to its replies
    """
    if properties.reply_to != NAME:
        return properties
    if channel.reply_address is None:
        raise Refusal(406, "fast reply consumer does not exist")
    return copied_properties(properties, reply_to=channel.reply_address)


def publish(channel: ServerChannel, message: Message) -> None:
    """Deliver a reply; drop it where the client is gone."""
    found = channel.broker.reply_addresses.get(message.routing_key)
    if found is not None:
        target, tag = found
        target.deliver_reply(tag, message)
