//! A host written by somebody else, from the card contract and the public vfio-user protocol alone, on a simulated card.

use qkd_tests::DEADLINE;
use qkd_tests::module::Cards;
use qkd_tests::witness;

#[test]
fn a_foreign_host_finds_the_card_that_the_contract_describes() {
    let cards = Cards::start(&["--key", "positional", "--rate", "5M", "--weather", "calm"]);
    let mut host = witness::start("raw_vfio_user.py", &[&cards.socket_a]);
    let end = host.line(" passed, ", DEADLINE * 5);
    assert_eq!(end, "15 passed, 0 failed", "{}\n{}", host.output(), cards.process.output());
    assert!(host.wait(DEADLINE).success());
}
