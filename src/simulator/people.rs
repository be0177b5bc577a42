//! The people of a simulation: contacts of companies, and members of the service desk. The same
//! person always has the same number.

use super::random::Random;
use crate::webhook::session::{Company, Lenient, User, UserId};

const FIRST_NAMES: &str = "Aroha,Ben,Chiara,Dmitri,Elena,Farid,Grace,Hugo,Ines,José,Kaia,Zoë";
const LAST_NAMES: &str =
    "Ngata,Whitlock,Moretti,Volkov,Fischer,Haddad,Okafor,Lindqvist,O'Brien,Sato";
const MEMBERS: &str = "Iris Calder,Jonas Pell,Keiko Mori,Luca Brandt,Mere Paki,Noah Weiss";
/// Names and identifiers.
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

/// A random contact: an employee of a customer.
pub(super) fn contact(random: &mut Random) -> User {
    let (first, first_name) = name(random, FIRST_NAMES);
    let (last, last_name) = name(random, LAST_NAMES);
    let (company, (company_name, identifier)) = random.draw(&COMPANIES);
    let number = 10_000 + company * 1000 + first * 10 + last;
    let company = Company {
        entity_id: Lenient::Is((2900 + company).into()),
        name: company_name.to_string().into(),
        identifier: identifier.to_string().into(),
    };
    User {
        company: company.into(),
        ..user(format!("{first_name} {last_name}"), 'c', number)
    }
}

/// A random member of the service desk.
pub(super) fn member(random: &mut Random) -> User {
    let (index, name) = name(random, MEMBERS);
    user(name.to_owned(), 'm', 200 + index)
}

fn user(name: String, kind: char, number: u64) -> User {
    User {
        entity_id: Lenient::Is(number.into()),
        name: name.into(),
        user_id: UserId(format!("simulation~{kind}~{number}")).into(),
        company: Lenient::Absent,
    }
}

fn name(random: &mut Random, names: &'static str) -> (u64, &'static str) {
    let names: Vec<_> = names.split(',').collect();
    let (index, name) = random.draw(&names);
    (index, name)
}
