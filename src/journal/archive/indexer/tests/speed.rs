//! Measures the cost of the archive and the time of searches in a million events. Not a test of
//! correctness. Run it by hand with optimisation: `cargo test --release --lib indexer::tests::speed
//! -- --ignored --nocapture`. `ARCHIVE_EVENTS` sets another number of events.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "numbers for display"
)]

use std::fmt::Write;

use super::*;
use crate::journal::tests::cost::processor_time;

const EVENTS: usize = 1_000_000;
const GROUP: usize = 500;
/// Searches of each kind.
const SEARCHES: usize = 200;
/// The limit of `events list --limit 20`.
const LIMIT: usize = 20;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }

    /// A number below `end`; small numbers are more frequent, like common words and active
    /// customers.
    fn uneven(&mut self, end: u64) -> u64 {
        let share = self.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        ((end + 1) as f64).powf(share) as u64 - 1
    }
}

/// A word that is unique for a number.
fn made_word(number: u64) -> String {
    let (consonants, vowels) = ("bdfgklmnprstvz", "aeiou");
    let letter = |of: &str, number: u64| char::from(of.as_bytes()[number as usize % of.len()]);
    let (mut rest, mut word) = (number * 7 + 13, String::new());
    while rest > 0 {
        word.push(letter(consonants, rest));
        word.push(letter(vowels, rest / 14));
        rest /= 70;
    }
    word
}

struct Chat {
    id: String,
    contact: u64,
    member: u64,
    step: usize,
}

fn person(number: u64) -> String {
    format!(
        "{} {}",
        made_word(number % 300 + 100),
        made_word(number / 7 % 2000 + 5000)
    )
}

fn company(contact: u64) -> String {
    format!(
        "{} {} Ltd",
        made_word(contact % 2000 + 300),
        made_word(contact % 50 + 40)
    )
}

/// The body as DeskDirector sends it, without white space.
fn chat_body(random: &mut Random, chat: &Chat, number: usize) -> String {
    let status = ["created", "handled", "completed", "missed"][chat.step];
    let at = format!("2026-07-01T00:00:{:02}.{number:07}Z", number % 60);
    let company = company(chat.contact);
    let contact = json!({
        "entityId": chat.contact, "name": person(chat.contact),
        "userId": format!("acmedesk~c~{}", chat.contact),
        "company": {"entityId": chat.contact % 2000, "name": company,
                    "identifier": company.replace(' ', "")},
    });
    let member = json!({
        "entityId": chat.member, "name": person(chat.member),
        "userId": format!("acmedesk~m~{}", chat.member),
    });
    let mut note = String::new();
    for _ in 0..6 + random.below(14) {
        let _ = write!(note, "{} ", made_word(random.uneven(8000) + 100_000));
    }
    json!({
        "id": chat.id, "name": format!("Chat Request from {} at {company}", person(chat.contact)),
        "type": "request", "status": status, "pastStatus": ["created"],
        "report": {"creatorWaited": 12, "handledDateTime": at},
        "reference": {"type": "ticket", "id": random.below(90_000).to_string()},
        "creator": contact, "targetUsers": [],
        "closeRecord": {"user": member, "note": note, "lastModifiedDateTime": at},
        "users": [contact, member], "participants": [contact, member],
        "lastMessageId": format!("{number}-5E-acmedesk~c~{}", chat.contact),
        "createdDateTime": at, "lastModifiedDateTime": at,
    })
    .to_string()
}

/// Fills a journal; returns the bytes of all bodies, and the ids of some sessions and messages.
fn fill(bench: &mut Bench, events: usize) -> (u64, Vec<String>, Vec<uuid::Uuid>) {
    let mut random = Random(88_172_645_463_325_252);
    let (mut chats, mut bytes): (Vec<Chat>, u64) = (Vec::new(), 0);
    let (mut ids, mut messages) = (Vec::new(), Vec::new());
    let mut changes = Vec::new();
    for group in 0..events / GROUP {
        let mut webhooks = Vec::new();
        for number in group * GROUP..(group + 1) * GROUP {
            while chats.len() < 300 {
                chats.push(Chat {
                    id: format!("{}-{}", 1_530_162_945 + number, random.below(10_000)),
                    contact: random.uneven(20_000),
                    member: 50_000 + random.below(60),
                    step: 0,
                });
            }
            let drawn = random.below(chats.len() as u64) as usize;
            let body = chat_body(&mut random, &chats[drawn], number);
            bytes += body.len() as u64;
            let envelope = Envelope {
                received_at: received_at(number as i64 / 2),
                webhook_id: uuid::Uuid::new_v4(),
                ..samples::envelope()
            };
            let webhook = split(samples::verified(body), envelope, 10).unwrap();
            if number % 1000 == 0 {
                ids.push(chats[drawn].id.clone());
                messages.push(webhook.events[0].message_id);
            }
            webhooks.push(webhook);
            chats[drawn].step += 1;
            if chats[drawn].step > 3 {
                chats.swap_remove(drawn);
            }
        }
        let committed = bench.commit(&changes, &webhooks);
        let settled = committed.fresh.iter().map(|held| match held.seq % 5000 {
            0 => settle(held, FinalState::DeadLettered(DeadLetterReason::Nacked)),
            _ => published(held),
        });
        changes = settled.collect();
        if group % 10 == 0 {
            bench.store.checkpoint().unwrap();
        }
    }
    bench.commit(&changes, &[]);
    bench.store.checkpoint().unwrap();
    (bytes, ids, messages)
}

fn written_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    written.unwrap().parse().unwrap()
}

fn search(name: &str, bench: &Bench, mut selection: impl FnMut(usize) -> Selection) {
    let (mut times, mut found) = (Vec::new(), 0);
    for round in 0..SEARCHES {
        let selection = selection(round);
        let began = Instant::now();
        found += archive(bench).last(&selection, LIMIT).unwrap().len();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!(
        "{name:<34} p50 {:>10.1?} p99 {:>10.1?} most {:>10.1?}, {:.1} found",
        times[SEARCHES / 2],
        times[SEARCHES * 99 / 100],
        times[SEARCHES - 1],
        found as f64 / SEARCHES as f64,
    );
}

#[test]
#[ignore = "a measurement"]
#[expect(clippy::too_many_lines, reason = "a table of searches")]
fn search_speed_of_a_million_events() {
    let events = std::env::var("ARCHIVE_EVENTS").ok();
    let events = events.map_or(EVENTS, |events| events.parse().unwrap());
    let mut bench = Bench::keeping(WEEK * 100, u64::MAX);
    let (bytes, ids, messages) = fill(&mut bench, events);
    let each = |amount: f64| amount / events as f64;
    println!("{events} events of {:.0} bytes", each(bytes as f64));

    let mut called = Called::of(&bench);
    called.worker.batch_events = BATCH_EVENTS;
    let (began, cpu, written) = (Instant::now(), processor_time(), written_bytes());
    let mut longest = Duration::ZERO;
    loop {
        let began = Instant::now();
        if called.worker.step().unwrap() == TICK {
            break;
        }
        longest = longest.max(began.elapsed());
    }
    let cpu = processor_time().saturating_sub(cpu);
    let written = (written_bytes() - written) as f64;
    let size = file::size(&bench.dir.path().join(ARCHIVE)) as f64;
    println!(
        "{:.2} us of CPU and {:.2} us in total per event; longest batch {longest:?}; written {:.0} \
         bytes per event, {:.3} per byte of payload; on disk {:.0} bytes per event, {:.3} per byte",
        each(cpu.as_secs_f64() * 1e6),
        each(began.elapsed().as_secs_f64() * 1e6),
        each(written),
        written / bytes as f64,
        each(size),
        size / bytes as f64,
    );
    drop(called);

    let text = |field: fn(&mut Search) -> &mut Option<crate::webhook::search::Phrase>,
                text: &str| {
        let mut selection = Selection::default();
        *field(&mut selection.search) = Some(text.parse().unwrap());
        selection
    };
    let mut random = Random(0x5851_f42d_4c95_7f2d);
    search("session", &bench, |round| Selection {
        sessions: vec![ids[round * 7 % ids.len()].clone()],
        ..Selection::default()
    });
    search("message_id", &bench, |round| Selection {
        message_id: Some(messages[round * 7 % messages.len()]),
        ..Selection::default()
    });
    search("an hour", &bench, |_| {
        let second = random.below(events as u64 / 2) as i64;
        Selection {
            since: Some(received_at(second)),
            until: Some(received_at(second + 3600)),
            ..Selection::default()
        }
    });
    search("status and since", &bench, |_| Selection {
        statuses: vec!["missed".into()],
        since: Some(received_at(random.below(events as u64 / 2) as i64)),
        ..Selection::default()
    });
    search("status that is never sent", &bench, |_| Selection {
        statuses: vec!["archived".into()],
        ..Selection::default()
    });
    search("unknown status", &bench, |_| Selection {
        statuses: vec!["unknown".into()],
        statuses_but: Some(KNOWN.map(str::to_owned).to_vec()),
        ..Selection::default()
    });
    search("dead-lettered", &bench, |_| Selection {
        state: Some(EventState::DeadLettered),
        ..Selection::default()
    });
    search("pending", &bench, |_| Selection {
        state: Some(EventState::Pending),
        ..Selection::default()
    });
    search("company", &bench, |_| {
        text(
            |search| &mut search.company,
            &company(random.uneven(20_000)),
        )
    });
    search("name", &bench, |_| {
        text(|search| &mut search.name, &person(random.uneven(20_000)))
    });
    search("rare word", &bench, |_| {
        text(
            |search| &mut search.text,
            &made_word(108_000 - random.below(1000)),
        )
    });
    search("common word", &bench, |_| {
        text(|search| &mut search.text, "chat request")
    });
    search("word of one in a hundred", &bench, |_| {
        text(
            |search| &mut search.text,
            &made_word(100_000 + random.below(20)),
        )
    });
    search("nothing", &bench, |_| {
        text(|search| &mut search.text, "nobody has said this")
    });
    search("common word, company, dead-lettered", &bench, |_| {
        Selection {
            state: Some(EventState::DeadLettered),
            ..text(|search| &mut search.company, &company(random.uneven(2_000)))
        }
    });
    let began = Instant::now();
    let apart = text(|search| &mut search.text, "request ltd");
    archive(&bench).last(&apart, LIMIT).unwrap();
    println!(
        "common words that are never adjacent: {:?}",
        began.elapsed()
    );
    files::remove(&bench.dir.path().join(ARCHIVE)).unwrap();
    let began = Instant::now();
    let found = forward(&archive(&bench), &text(|search| &mut search.text, "nobody"));
    println!(
        "without an archive, no result: {:?}, {}",
        began.elapsed(),
        found.len()
    );
}
