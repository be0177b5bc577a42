"""What every good consumer of deskbridge does: a queue of its own, order by session, retry by reject, a graceful stop."""

import asyncio
import logging
import os
import signal
import weakref

import aio_pika
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2f")
EXCHANGE = os.environ.get("EXCHANGE", "chat-sessions")
RETRY_PAUSE = float(os.environ.get("RETRY_PAUSE", "1"))  # seconds before a message goes back to the queue
REQUEUE = os.environ.get("REQUEUE", "1") != "0"  # 0: deskbridge retries the queue (`broker.retries` in its /status)
PREFETCH = 20  # messages in hand at once
# If nobody has declared the queue, as `[[queues]]` of deskbridge would: replicated, bounded retries, then the dead-letter queue.
ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-overflow": "reject-publish",
             "x-dead-letter-exchange": "chat-sessions.dead-letter", "x-dead-letter-strategy": "at-least-once"}
log = logging.getLogger("consumer")


async def consume(name, keys, handle):
    """Calls `await handle(message)` for each message of the queue until SIGTERM. An exception means: again, later."""
    stop, in_hand = asyncio.Event(), set()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lanes = weakref.WeakValueDictionary()  # one lock a session; asyncio's lock is fair, so it is a queue

    async def on_message(message):
        in_hand.add(asyncio.current_task())
        asyncio.current_task().add_done_callback(in_hand.discard)
        lane = lanes.setdefault(message.correlation_id, asyncio.Lock())
        async with lane:  # the messages of a session one after another, sessions side by side
            if stop.is_set():
                return  # not begun and not acknowledged: goes back
            try:
                await handle(message)
            except Exception as error:
                log.warning("%s is rejected: %s", message.message_id, error)
                if REQUEUE:
                    await asyncio.sleep(RETRY_PAUSE)
                await message.reject(requeue=REQUEUE)  # counts towards x-delivery-limit on every version
            else:
                await message.ack()  # only now: what a crash interrupts comes again

    while not stop.is_set():
        try:
            connection = await aio_pika.connect_robust(URL, client_properties={"connection_name": name})
        except (AMQPError, OSError) as error:
            log.warning("no broker yet: %s", error)
            await wait(stop, 2)
            continue
        async with connection:
            try:
                channel, queue = await open_queue(connection, name)
                await channel.set_qos(prefetch_count=PREFETCH)
                for key in keys:
                    await queue.bind(EXCHANGE, key)
                tag = await queue.consume(on_message)
            except AMQPError as error:  # the bridge declares the exchange when it starts
                log.warning("not ready yet: %s", error)
                await wait(stop, 2)
                continue
            log.info("consuming %s", name)
            await stop.wait()
            await queue.cancel(tag)  # nothing new; what is in hand is finished, the rest goes back
            if in_hand:
                await asyncio.wait(in_hand, timeout=10)


async def open_queue(connection, name):
    """The existing queue: a declaration with other arguments would be refused (406)."""
    channel = await connection.channel()
    try:
        return channel, await channel.declare_queue(name, passive=True)
    except ChannelNotFoundEntity:  # which closed the channel
        channel = await connection.channel()
        return channel, await channel.declare_queue(name, durable=True, arguments=ARGUMENTS)


async def wait(stop, seconds):
    """Waits, but not longer than until it is time to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        pass
