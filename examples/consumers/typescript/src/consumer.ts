// What every good consumer of deskbridge does: a queue of its own, order by session, retry by reject, a graceful stop.

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type Channel, type ChannelModel, type ConsumeMessage } from 'amqplib';

const URL = process.env.AMQP_URL ?? 'amqp://guest:guest@localhost:5672/%2f';
const EXCHANGE = process.env.EXCHANGE ?? 'chat-sessions';
const RETRY_PAUSE = 1000 * Number(process.env.RETRY_PAUSE ?? 1); // before a message goes back to the queue
const REQUEUE = process.env.REQUEUE !== '0'; // 0: deskbridge retries the queue (`broker.retries` in its /status)
const PREFETCH = 20; // messages in hand at once
// If nobody has declared the queue, as `[[queues]]` of deskbridge would: replicated, bounded retries, then the dead-letter queue.
const ARGUMENTS = {
  'x-queue-type': 'quorum', 'x-delivery-limit': 5, 'x-overflow': 'reject-publish',
  'x-dead-letter-exchange': 'chat-sessions.dead-letter', 'x-dead-letter-strategy': 'at-least-once',
};

export type Handle = (message: ConsumeMessage) => Promise<void>;

/** Calls `handle` for each message of the queue until SIGTERM. A rejection means: again, later. */
export async function consume(name: string, keys: string[], handle: Handle): Promise<void> {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stop.abort());
  while (!stop.signal.aborted) {
    try {
      await consumeOnce(name, keys, handle, stop.signal);
    } catch (error) { // no broker, or the bridge has not declared the exchange yet
      console.warn(`consumer: again in 2 s: ${error}`);
      await sleep(2000, undefined, { signal: stop.signal }).catch(() => {});
    }
  }
}

async function consumeOnce(name: string, keys: string[], handle: Handle, stop: AbortSignal): Promise<void> {
  const connection = await connect(URL, { clientProperties: { connection_name: name }, timeout: 10_000 });
  const lost = new Promise<never>((_, reject) => connection.on('close', () => reject(new Error('connection lost'))));
  lost.catch(() => {});
  connection.on('error', (error) => console.warn(`consumer: ${error}`));
  const lanes = new Map<string, Promise<void>>(); // the last message in hand of each session
  try {
    const channel = await openQueue(connection, name);
    const settle = (act: () => void) => { try { act(); } catch { /* the connection is gone: it comes again */ } };
    const work = async (message: ConsumeMessage) => {
      if (stop.aborted) return; // not begun and not acknowledged: goes back
      try {
        await handle(message);
      } catch (error) {
        console.warn(`consumer: ${message.properties.messageId} is rejected: ${error}`);
        if (REQUEUE) await sleep(RETRY_PAUSE);
        return settle(() => channel.reject(message, REQUEUE)); // counts towards x-delivery-limit on every version
      }
      settle(() => channel.ack(message)); // only now: what a crash interrupts comes again
    };
    await channel.prefetch(PREFETCH);
    for (const key of keys) await channel.bindQueue(name, EXCHANGE, key);
    const { consumerTag } = await channel.consume(name, (message) => {
      if (!message) return void connection.close(); // the queue was deleted: start again
      const session = message.properties.correlationId ?? '';
      // The messages of a session one after another, sessions side by side.
      const turn = (lanes.get(session) ?? Promise.resolve()).then(() => work(message));
      lanes.set(session, turn);
      void turn.finally(() => { if (lanes.get(session) === turn) lanes.delete(session); });
    });
    console.info(`consumer: consuming ${name}`);
    if (!stop.aborted) await Promise.race([once(stop, 'abort'), lost]);
    await channel.cancel(consumerTag); // nothing new; what is in hand is finished, the rest goes back
    await Promise.race([Promise.all(lanes.values()), sleep(10_000, undefined, { ref: false })]);
  } finally {
    await connection.close().catch(() => {});
  }
}

/** A channel on which the queue exists: a declaration with other arguments would be refused (406). */
async function openQueue(connection: ChannelModel, name: string): Promise<Channel> {
  const open = async (): Promise<Channel> => {
    const channel = await connection.createChannel();
    channel.on('error', () => {}); // told by the call that failed
    return channel;
  };
  const channel = await open();
  try {
    await channel.checkQueue(name);
    return channel;
  } catch (error) {
    if ((error as { code?: number }).code !== 404) throw error;
  }
  const other = await open(); // the answer closed the first one
  await other.assertQueue(name, { durable: true, arguments: ARGUMENTS });
  return other;
}
