//! Who chats in a simulation: contacts of companies, and members of the service desk. The same
//! person always has the same number.

use deskbridge::webhook::session::{Company, Lenient, User, UserId, UserKind};

use super::random::Random;

const INSTANCE: &str = "simulation";

const FIRST_NAMES: [&str; 12] = [
    "Aroha", "Ben", "Chiara", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "José", "Kaia",
    "Zoë",
];
const LAST_NAMES: [&str; 10] = [
    "Ngata",
    "Whitlock",
    "Moretti",
    "Volkov",
    "Fischer",
    "Haddad",
    "Okafor",
    "Lindqvist",
    "O'Brien",
    "Sato",
];
const MEMBERS: [&str; 6] = [
    "Iris Calder",
    "Jonas Pell",
    "Keiko Mori",
    "Luca Brandt",
    "Mere Paki",
    "Noah Weiss",
];
const COMPANIES: [(&str, &str); 8] = [
    ("Kauri Timber Ltd", "KauriTimber"),
    ("Harbour Dental", "HarbourDental"),
    ("Northwind Freight", "NorthwindFreight"),
    ("Summit & Co", "SummitCo"),
    ("Pixel Orchard", "PixelOrchard"),
    ("Brennan Law", "BrennanLaw"),
    ("Müller Präzision", "MuellerPraezision"),
    ("Tidewater Council", "TidewaterCouncil"),
];

/// Somebody who works for a company that is looked after.
pub fn contact(random: &mut Random) -> User {
    let first = random.below(FIRST_NAMES.len() as u64);
    let last = random.below(LAST_NAMES.len() as u64);
    let company = random.below(COMPANIES.len() as u64);
    let number = 10_000 + company * 1000 + first * 10 + last;
    let (name, identifier) = COMPANIES[position(company)];
    let company = Company {
        entity_id: Lenient::Is((2900 + company).into()),
        name: name.to_owned().into(),
        identifier: identifier.to_owned().into(),
    };
    let name = format!(
        "{} {}",
        FIRST_NAMES[position(first)],
        LAST_NAMES[position(last)]
    );
    User {
        company: company.into(),
        ..user(name, UserKind::Contact, number)
    }
}

/// Somebody who looks after them.
pub fn member(random: &mut Random) -> User {
    let index = random.below(MEMBERS.len() as u64);
    let name = MEMBERS[position(index)].to_owned();
    user(name, UserKind::Member, 200 + index)
}

fn user(name: String, kind: UserKind, number: u64) -> User {
    User {
        entity_id: Lenient::Is(number.into()),
        name: name.into(),
        user_id: UserId {
            instance: INSTANCE.into(),
            kind,
            number,
        }
        .into(),
        company: Lenient::Absent,
    }
}

fn position(drawn: u64) -> usize {
    usize::try_from(drawn).expect("a number below a length is a position")
}
