// Tells a manager of missed chats, and reminds when a session stays handled for more than an hour.

import { existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { setInterval } from 'node:timers/promises';
import type { ConsumeMessage } from 'amqplib';
import { consume } from './consumer.js';

const NOTIFY_URL = process.env.NOTIFY_URL; // an incoming webhook; without it, the log
const NOTIFY_FORMAT = process.env.NOTIFY_FORMAT || 'text'; // text: {"text": …}; teams: an Adaptive Card
const REMIND_AFTER = 1000 * Number(process.env.REMIND_AFTER ?? 3600);
const QUEUE = process.env.QUEUE ?? 'example-typescript';
const KEEP = 7 * 86_400_000; // how long a message_id is remembered, in milliseconds

type Session = { session: string; received: string; status: string; name: string; remindAt?: number };
type Change = { messageId?: string; at: number } & Session; // one line of the file

/** What was done and where sessions stand: in memory, and in a file of changes that is rewritten at each start. */
class State {
  readonly done = new Map<string, Change>();
  readonly sessions = new Map<string, Session>();
  readonly #file: number;

  constructor(path: string) {
    for (const line of existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []) {
      try { this.#apply(JSON.parse(line)); } catch { /* empty, or cut off by a crash: not acknowledged either */ }
    }
    this.#file = openSync(`${path}.new`, 'w');
    for (const change of this.done.values()) if (change.at > Date.now() - KEEP) this.#write(change);
    for (const session of this.sessions.values()) this.#write({ at: Date.now(), ...session });
    fsyncSync(this.#file);
    renameSync(`${path}.new`, path);
  }

  record(change: Change): void {
    this.#write(change);
    fsyncSync(this.#file); // the effect and "done" together, before the message is acknowledged
    this.#apply(change);
    for (const [messageId, { at }] of this.done) {
      if (at > Date.now() - KEEP) break; // the oldest come first
      this.done.delete(messageId);
    }
  }

  #write(change: Change): void {
    writeSync(this.#file, `${JSON.stringify(change)}\n`);
  }

  #apply({ messageId, at, ...session }: Change): void {
    if (messageId) this.done.set(messageId, { messageId, at, ...session });
    const known = this.sessions.get(session.session);
    if (known && known.received > session.received) return; // a redelivery may be older than what is known
    const stays = messageId && known?.status === 'handled' && session.status === 'handled';
    this.sessions.set(session.session, stays ? { ...session, remindAt: known.remindAt } : session);
  }
}

const state = new State(process.env.STATE ?? 'chats.jsonl');

function body(text: string): object {
  if (NOTIFY_FORMAT !== 'teams') return { text };
  const block = { type: 'TextBlock', text, wrap: true };
  const $schema = 'http://adaptivecards.io/schemas/adaptive-card.json';
  const card = { type: 'AdaptiveCard', $schema, version: '1.4', body: [block] };
  return { type: 'message', attachments: [{ contentType: 'application/vnd.microsoft.card.adaptive', content: card }] };
}

/** Tells the manager; rejects if nobody took it. The key lets a receiver drop what comes twice. */
async function notify(text: string, key: string): Promise<void> {
  console.info(`chats: ${text}`);
  if (!NOTIFY_URL) return;
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': key };
  const options = { method: 'POST', headers, body: JSON.stringify(body(text)), signal: AbortSignal.timeout(10_000) };
  const answer = await fetch(NOTIFY_URL, options);
  if (!answer.ok) throw new Error(`the manager's webhook answered ${answer.status}`);
}

async function handle({ properties, content }: ConsumeMessage): Promise<void> {
  if (state.done.has(properties.messageId)) return; // delivered or sent again: the same event has the same message_id
  const { 'session-id': session, status, 'received-at': received } = properties.headers ?? {};
  const name = String(JSON.parse(content.toString()).name); // may be missing, or no string
  if (status === 'missed') await notify(`Missed: ${name} (${session})`, properties.messageId);
  const remindAt = status === 'handled' ? 1000 * properties.timestamp + REMIND_AFTER : undefined;
  state.record({ messageId: properties.messageId, at: Date.now(), session, received, status, name, remindAt });
}

/** Looks once a second for sessions that have been handled for too long, and tells of each once. */
async function remind(): Promise<void> {
  for await (const _ of setInterval(1000, undefined, { ref: false })) {
    for (const { remindAt, ...session } of state.sessions.values()) {
      if (!remindAt || remindAt > Date.now()) continue;
      try {
        await notify(`Still open: ${session.name} (${session.session})`, `${session.session}/${session.received}`);
        if (state.sessions.get(session.session)?.remindAt === remindAt) state.record({ at: Date.now(), ...session });
      } catch (error) {
        console.warn(`chats: the reminder of ${session.session} waits: ${error}`);
      }
    }
  }
}

void remind();
await consume(QUEUE, ['chat-session.*'], handle);
process.exit();
