"""Tells a manager of missed chats, and reminds when a session stays handled for more than an hour."""

import asyncio
import json
import logging
import os
import sqlite3
import time
import urllib.request

from consumer import consume

NOTIFY_URL = os.environ.get("NOTIFY_URL")  # an incoming webhook; without it, the log
NOTIFY_FORMAT = os.environ.get("NOTIFY_FORMAT") or "text"  # text: {"text": …}; teams: an Adaptive Card
REMIND_AFTER = float(os.environ.get("REMIND_AFTER", "3600"))  # seconds
QUEUE = os.environ.get("QUEUE", "example-python")
log = logging.getLogger("chats")

state = sqlite3.connect(os.environ.get("STATE", "chats.db"), isolation_level=None)
state.executescript("""
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS done (message_id TEXT PRIMARY KEY, at REAL);
    CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, received TEXT, status TEXT, name TEXT, remind_at REAL);
""")


def body(text):
    if NOTIFY_FORMAT != "teams":
        return {"text": text}
    block = {"type": "TextBlock", "text": text, "wrap": True}
    card = {"type": "AdaptiveCard", "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "version": "1.4",
            "body": [block]}
    return {"type": "message",
            "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}]}


def notify(text, key):
    """Tells the manager; raises if nobody took it. The key lets a receiver drop what comes twice."""
    log.info(text)
    if NOTIFY_URL:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        request = urllib.request.Request(NOTIFY_URL, json.dumps(body(text)).encode(), headers)
        urllib.request.urlopen(request, timeout=10).close()


async def handle(message):
    if state.execute("SELECT 1 FROM done WHERE message_id = ?", (message.message_id,)).fetchone():
        return  # delivered again, or sent again: the same event has the same message_id
    session, status, received = (message.headers[name] for name in ("session-id", "status", "received-at"))
    name = json.loads(message.body).get("name")  # may be missing, or no string
    if status == "missed":
        await asyncio.to_thread(notify, f"Missed: {name} ({session})", message.message_id)
    due = message.timestamp.timestamp() + REMIND_AFTER if status == "handled" else None
    with state:  # the effect and "done" together, or neither
        state.execute("BEGIN IMMEDIATE")
        state.execute("INSERT INTO done VALUES (?, ?)", (message.message_id, time.time()))
        state.execute("""INSERT INTO sessions VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
            SET remind_at = CASE WHEN status = 'handled' AND excluded.status = 'handled' THEN remind_at
                                 ELSE excluded.remind_at END,
                received = excluded.received, status = excluded.status, name = excluded.name
            WHERE received <= excluded.received""",  # a redelivery may be older than what is known
            (session, received, status, str(name), due))


async def remind():
    """Looks once a second for sessions that have been handled for too long, and tells of each once."""
    while True:
        await asyncio.sleep(1)
        due = state.execute("SELECT id, received, name FROM sessions WHERE remind_at <= ?", (time.time(),)).fetchall()
        for session, received, name in due:
            try:
                await asyncio.to_thread(notify, f"Still open: {name} ({session})", f"{session}/{received}")
                state.execute("UPDATE sessions SET remind_at = NULL WHERE id = ? AND status = 'handled'", (session,))
            except OSError as error:
                log.warning("reminder of %s waits: %s", session, error)
        state.execute("DELETE FROM done WHERE at < ?", (time.time() - 7 * 86_400,))


async def main():
    reminders = asyncio.create_task(remind())
    await consume(QUEUE, ["chat-session.*"], handle)
    reminders.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    asyncio.run(main())
