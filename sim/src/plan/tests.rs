//! Faults as text, and their order.

use std::collections::BTreeSet;
use std::io::Write;

use clap::ValueEnum;

use super::{BadFault, Deed, Fault, FaultText, Kind, Plan, Where, read_plan};
use crate::card::{OnDelivery, Trouble};

fn parse(text: &str) -> Result<Fault, BadFault> {
    text.parse::<FaultText>().map(Fault::from)
}

fn file(text: &str) -> Result<Vec<Fault>, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    read_plan(file.path()).map_err(|error| error.to_string())
}

#[test]
fn a_fault_is_what_its_words_say() {
    let expected = Fault { at: 3_000_000, end: Where::B, deed: Deed::LoseBlocks(4) };
    assert_eq!(parse("at=3s end=b kind=lose-block count=4").unwrap(), expected);
    assert_eq!(parse("kind=lose-block count=4 at=3000ms end=b for=9h").unwrap(), expected);
    let outage = parse("at=1.5s kind=outage for=2m").unwrap();
    assert_eq!(outage, Fault { at: 1_500_000, end: Where::Both, deed: Deed::Outage(120_000_000) });
    let crc = parse("at=0us kind=bad-crc end=a").unwrap();
    assert_eq!(crc.deed, Deed::Card(Trouble::Deliveries(OnDelivery::BadPayloadCrc, 1)));
}

#[test]
fn words_that_mean_nothing_are_refused_and_named() {
    for (text, part) in [
        ("at=3s", "kind is missing"),
        ("kind=outage", "at is missing"),
        ("at=3s kind=outage extra", "extra"),
        ("at=3s kind=oops", "kind=oops"),
        ("at=3s kind=outage end=c", "end=c"),
        ("at=3s kind=outage count=-1", "count=-1"),
        ("at=3s kind=outage until=3s", "until=3s"),
        ("at=3 kind=outage", "\"3\""),
        ("at=s kind=outage", "\"s\""),
        ("at=-3s kind=outage", "\"-3s\""),
        ("at=1e30h kind=outage", "\"1e30h\""),
        ("at=NaNs kind=outage", "NaN"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_plan_file_says_the_same_as_the_command_line() {
    let text = "[[fault]]\nat = \"3s\"\nend = \"b\"\nkind = \"lose-block\"\ncount = 4\n\n\
                [[fault]]\nat = \"4s\"\nkind = \"realign\"\nfor = \"2s\"\n";
    let expected = ["at=3s end=b kind=lose-block count=4", "at=4s kind=realign for=2s"];
    assert_eq!(file(text).unwrap(), expected.map(|text| parse(text).unwrap()));
    assert_eq!(file("").unwrap(), []);
}

#[test]
fn a_plan_file_with_a_mistake_is_refused_with_its_place() {
    for (text, part) in [
        ("[[fault]]\nat = \"3s\"\nkind = \"oops\"\n", "oops"),
        ("[[fault]]\nat = \"3s\"\nkind = \"outage\"\ncuont = 1\n", "cuont"),
        ("[[fault]]\nat = 3\nkind = \"outage\"\n", "line 2"),
        ("[[faults]]\n", "faults"),
        ("[[fault]\n", "line 1"),
    ] {
        let error = file(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(read_plan(std::path::Path::new("/no/such/plan")).is_err());
}

#[test]
fn every_kind_is_explained_in_the_help() {
    let help = crate::pair::fault_help();
    for kind in Kind::value_variants() {
        let name = kind.to_possible_value().unwrap();
        assert!(help.contains(&format!("\n  {} ", name.get_name())), "{kind:?}");
    }
}

#[test]
fn faults_come_in_the_order_of_their_time_and_once() {
    let at = |at| Fault { at, end: Where::A, deed: Deed::LoseBlocks(1) };
    let mut plan = Plan::named(vec![at(5), at(1), at(3)]);
    assert_eq!(plan.next_until(0), None);
    assert_eq!(plan.next_until(3), Some(at(1)));
    assert_eq!(plan.next_until(3), Some(at(3)));
    assert_eq!(plan.next_until(3), None);
    assert_eq!(plan.next_until(u64::MAX), Some(at(5)));
    assert_eq!(plan.next_until(u64::MAX), None);
}

#[test]
fn random_faults_follow_seed_and_rate_and_leave_out_what_nobody_recovers_from() {
    let faults = |seed, per_minute| {
        let mut plan = Plan::none().with_random(seed, per_minute);
        std::iter::from_fn(move || plan.next_until(3_600_000_000)).collect::<Vec<_>>()
    };
    assert_eq!(faults(1, 10.0), faults(1, 10.0));
    assert_ne!(faults(1, 10.0), faults(2, 10.0));
    assert!((500..700).contains(&faults(1, 10.0).len()), "ten a minute for an hour");
    assert!(faults(1, 0.0).is_empty());
    assert!(faults(1, 10.0).is_sorted_by_key(|fault| fault.at));
    let seen: BTreeSet<String> = faults(1, 60.0).iter().map(|fault| format!("{:?}", fault.deed)).collect();
    assert!(seen.len() > Kind::RECOVERABLE.len(), "all kinds, some with several counts");
    assert!(seen.iter().all(|deed| !deed.contains("Gone") && !deed.contains("Tamper")));
}

#[test]
fn random_faults_and_named_ones_mix_in_order() {
    let named = Fault { at: 60_000_000, end: Where::A, deed: Deed::LoseBlocks(77) };
    let mut plan = Plan::named(vec![named]).with_random(1, 60.0);
    let all: Vec<Fault> = std::iter::from_fn(|| plan.next_until(120_000_000)).collect();
    assert!(all.is_sorted_by_key(|fault| fault.at));
    assert_eq!(all.iter().filter(|fault| **fault == named).count(), 1);
}
