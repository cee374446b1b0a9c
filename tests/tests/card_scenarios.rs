//! The card scenarios over the vfio-user socket; the virtual machine test plays the same list over the kernel's VFIO.

use std::time::Duration;

use qkd_driver::backing::vfio_user::VfioUser;
use qkd_tests::DEADLINE;
use qkd_tests::module::Cards;
use qkd_tests::scenarios::{Faults, NAMES, Stage, all};

/// How long a second owner waits for an answer that never comes.
const ANSWER: Duration = Duration::from_secs(3);

/// Strikes card A through the pair's standard input.
struct ThroughInput<'a>(&'a mut Cards);

impl Faults for ThroughInput<'_> {
    fn strike(&mut self, words: &str) -> Result<(), String> {
        let line = format!("end=a {words}");
        let answer = format!("fault done {line}");
        let before = self.0.process.output().matches(&answer).count();
        self.0.process.tell(&line);
        // A refusal is seen in what the process printed when this gives up.
        let _ = self.0.process.nth_line(&answer, before, DEADLINE);
        Ok(())
    }
}

#[test]
fn every_scenario_holds_over_the_socket() {
    let mut cards = Cards::start(&["--key", "positional", "--weather", "calm", "--faults-from", "-"]);
    let socket = cards.socket_a.clone();
    let reach = || VfioUser::connect(&socket, ANSWER);
    let scenarios = all::<VfioUser>();
    assert_eq!(scenarios.iter().map(|scenario| scenario.name).collect::<Vec<_>>(), NAMES);
    let failed: Vec<String> = scenarios
        .iter()
        .filter_map(|scenario| {
            let outcome =
                (scenario.play)(&mut Stage { reach: &reach, faults: &mut ThroughInput(&mut cards) });
            outcome.err().map(|why| format!("{}: {why}", scenario.name))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_fault_that_nobody_strikes_fails_its_scenario() {
    struct Nobody;
    impl Faults for Nobody {
        fn strike(&mut self, _: &str) -> Result<(), String> {
            Ok(())
        }
    }
    let cards = Cards::start(&["--key", "positional", "--weather", "calm"]);
    let reach = || VfioUser::connect(&cards.socket_a, ANSWER);
    for name in [
        "a_card_that_shows_another_device_identifier_is_refused",
        "a_contract_version_too_new_is_refused",
        "a_failing_self_test_is_told_and_the_next_one_decides",
    ] {
        let scenario = all::<VfioUser>().into_iter().find(|scenario| scenario.name == name).expect(name);
        let outcome = (scenario.play)(&mut Stage { reach: &reach, faults: &mut Nobody });
        assert!(outcome.is_err(), "{name} passes although no fault was struck");
    }
}
