//! One broken invariant at a time.

use serde_json::json;

use super::*;
use crate::check::read_counted;

#[test]
fn good_histories_agree_and_everything_in_them_is_compared() {
    for count in [1, 99, 500] {
        let verdict = Case::new(count).judged();
        assert_eq!(verdict.outcome, Outcome::Agree, "{}", verdict.text());
        assert_eq!(verdict.streams.len(), 2);
        assert!(verdict.streams.iter().all(|row| (row.common, row.compared) == (count, count)));
        assert_eq!(verdict.origin_octets, 4 * count * u64::from(CHUNK));
    }
}

#[test]
fn runs_and_chunks_in_any_mixture_agree() {
    let runs = |stream| vec![run(stream, 0, 1024), run(stream, 1024, 76)];
    let chunks = |stream| (0..1100).map(|position| chunk(stream, position)).collect::<Vec<_>>();
    let mixed = |stream| {
        let mut lines: Vec<_> = (0..128).map(|position| chunk(stream, position)).collect();
        lines.push(run(stream, 128, 896));
        lines.extend((1024..1100).map(|position| chunk(stream, position)));
        lines
    };
    let forms = [Case::of(runs, 1100).a, Case::of(chunks, 1100).a, Case::of(mixed, 1100).a];
    for a in &forms {
        for b in &forms {
            let mut case = Case::new(1);
            (case.a, case.b) = (a.clone(), b.clone());
            case.b[0] = header("kms://b", 2);
            let verdict = case.judged();
            assert_eq!(verdict.outcome, Outcome::Agree, "{}", verdict.text());
            assert!(
                verdict.streams.iter().all(|row| (row.common, row.compared) == (1100, 1100)),
                "{}",
                verdict.text()
            );
        }
    }
}

#[test]
fn one_other_octet_is_caught() {
    let mut case = Case::new(50);
    case.chunk_in_b(20)["sha256"] = json!(Digest::of(b"other"));
    // The origin does not fit the digest any more either.
    assert_broken(&case, &[Invariant::I1, Invariant::I2]);
    case.chunk_in_b(20)["origin"] = json!([]);
    assert_broken(&case, &[Invariant::I1]);
}

#[test]
fn one_other_octet_within_a_run_is_caught() {
    let mut case = Case::of(|stream| vec![run(stream, 0, 1024)], 1024);
    let good = case.judged();
    assert_eq!(good.outcome, Outcome::Agree, "{}", good.text());
    let line = case.b.iter_mut().find(|line| line["kind"] == "run").expect("a run");
    let mut steps = base64_turbo::STANDARD.decode(line["steps"].as_str().expect("text")).expect("base64");
    steps[37] ^= 1;
    line["steps"] = json!(base64_turbo::STANDARD.encode(&steps));
    assert_broken(&case, &[Invariant::I1]);
}

#[test]
fn swapped_indices_are_caught() {
    let mut case = Case::new(50);
    let (one, two) = (case.chunk_in_b(20).clone(), case.chunk_in_b(21).clone());
    for (to, from) in [(20, &two), (21, &one)] {
        let line = case.chunk_in_b(to);
        line["sha256"] = from["sha256"].clone();
        line["origin"] = from["origin"].clone();
    }
    assert_broken(&case, &[Invariant::I1, Invariant::I2]);
}

#[test]
fn key_used_twice_is_caught_in_one_stream_and_in_two_at_one_end_and_at_both() {
    for (stream, position) in [(STREAM, 40), (OTHER, 20), (OTHER, 40)] {
        for both in [false, true] {
            let mut case = Case::new(50);
            let used = case.chunk_in_b(20).clone();
            let ends = if both { vec![&mut case.a, &mut case.b] } else { vec![&mut case.b] };
            for lines in ends {
                let find =
                    |line: &&mut Value| line["stream"] == json!(stream) && line["position"] == position;
                let line = lines.iter_mut().find(find).expect("the chunk");
                line["sha256"] = used["sha256"].clone();
                line["origin"] = used["origin"].clone();
            }
            let expected: &[_] = if both { &[Invariant::I2] } else { &[Invariant::I1, Invariant::I2] };
            assert_broken(&case, expected);
        }
    }
}

#[test]
fn key_used_twice_without_test_key_is_caught() {
    let mut case = Case::new(50);
    for lines in [&mut case.a, &mut case.b] {
        lines.iter_mut().filter(|line| line["kind"] == "chunk").for_each(|line| line["origin"] = json!([]));
        let used = lines.iter().find(|line| line["position"] == 20).expect("the chunk")["sha256"].clone();
        lines
            .iter_mut()
            .filter(|line| line["position"] == 40)
            .take(1)
            .for_each(|line| line["sha256"] = used.clone());
    }
    assert_broken(&case, &[Invariant::I2]);
}

#[test]
fn a_shifted_origin_is_caught() {
    let mut case = Case::new(50);
    case.chunk_in_b(20)["origin"] = json!([[3, 7, 20 * 32 + 1, 32]]);
    assert_broken(&case, &[Invariant::I2]);
    let mut case = Case::of(|stream| vec![run(stream, 0, 64)], 64);
    let line = case.b.iter_mut().find(|line| line["kind"] == "run").expect("a run");
    line["origin"] = json!([[3, 7, 16, 64 * 32]]);
    assert_broken(&case, &[Invariant::I2]);
}

#[test]
fn an_invented_key_is_caught() {
    let mut case = Case::new(50);
    case.chunk_in_b(20)["origin"] = json!([[9, 1, 0, 32]]);
    assert_broken(&case, &[Invariant::I2]);
    let mut case = Case::new(50);
    let invented = Digest::of(b"invented");
    for lines in [&mut case.a, &mut case.b] {
        let line = lines.iter_mut().find(|line| line["position"] == 20).expect("the chunk");
        (line["sha256"], line["origin"]) = (json!(invented), json!([[32]]));
        lines.insert(3, json!({"kind": "unexplained", "stream": STREAM, "position": 20, "length": 32, "sha256": invented}));
    }
    assert_broken(&case, &[Invariant::I2]);
    let mut case = Case::new(50);
    case.chunk_in_b(20)["origin"] = json!([[3, 7, 640, 31]]);
    assert_broken(&case, &[Invariant::I2]);
}

#[test]
fn a_chunk_that_changes_when_it_comes_again_is_caught() {
    let mut case = Case::new(50);
    case.insert_in_b(json!({"kind": "changed", "t": 2100, "stream": STREAM, "position": 7,
        "first": Digest::of(b"1"), "sha256": Digest::of(b"2")}));
    assert_broken(&case, &[Invariant::I3]);
}

#[test]
fn a_gap_nobody_told_of_is_caught_and_a_told_counted_or_wished_one_is_not() {
    let gap = || {
        let mut case = Case::new(50);
        case.drop_in_b(20..25);
        case
    };
    assert_broken(&gap(), &[Invariant::I4]);

    let notice = |status, position, t| json!({"kind": "notice", "t": t, "stream": STREAM, "status": status, "index": position, "position": position});
    for (line, agrees) in [
        (notice(2, 25, 2025), true),
        (notice(2, 30, 2031), true),
        (notice(2, 24, 2025), false),
        (notice(4, 25, 2025), false),
        (notice(2, 25, 2010), false),
    ] {
        let mut case = gap();
        case.insert_in_b(line.clone());
        assert_eq!(case.judged().outcome == Outcome::Agree, agrees, "{line}: {}", case.judged().text());
    }

    let case = gap();
    let (a, b) = case.paths();
    for (count, outcome) in [(5, Outcome::Agree), (4, Outcome::Violated)] {
        let path = case.directory.path().join("counted");
        std::fs::write(&path, json!({"stream": STREAM, "first": 20, "count": count}).to_string())
            .expect("writes");
        let verdict = judge(&a, &b, read_counted(&path).expect("reads")).expect("can be judged");
        assert_eq!(verdict.outcome, outcome, "{}", verdict.text());
    }

    // How many B's ledger counts beyond what B came to say; what A counts is no excuse.
    for (end, count, outcome) in
        [(1, 5, Outcome::Agree), (1, 4, Outcome::Violated), (0, 5, Outcome::Violated)]
    {
        let mut counted = CountedLosses::default();
        counted.add_more(end, STREAM, count);
        let verdict = judge(&a, &b, counted).expect("can be judged");
        assert_eq!(verdict.outcome, outcome, "{}", verdict.text());
    }

    let mut case = gap();
    case.drop_in_b(0..20);
    assert_broken(&case, &[Invariant::I4]);
    let mut asked = call("get_key", STREAM, 1600);
    asked["index"] = json!(25);
    case.insert_in_b(asked);
    assert_eq!(case.judged().outcome, Outcome::Agree, "{}", case.judged().text());
}

#[test]
fn a_chunk_out_of_order_is_caught() {
    let mut case = Case::new(50);
    let line = case.chunk_in_b(20).clone();
    case.drop_in_b(20..21);
    case.insert_in_b(line);
    // The gap that it left was not told of either.
    assert_broken(&case, &[Invariant::I4]);
    assert_eq!(case.judged().violations[&Invariant::I4], 2);
    let mut case = Case::new(50);
    let again = case.chunk_in_b(20).clone();
    case.insert_in_b(again);
    assert_broken(&case, &[Invariant::I4]);
}

#[test]
fn key_before_either_get_key_is_caught() {
    for end in 0..2 {
        for (t, agrees) in [(2000, true), (2001, false)] {
            let mut case = Case::new(50);
            let lines = if end == 0 { &mut case.a } else { &mut case.b };
            let line = lines.iter_mut().find(|line| line["kind"] == "get_key").expect("get-key");
            line["t"] = json!(t);
            if agrees {
                assert_eq!(case.judged().outcome, Outcome::Agree);
            } else {
                assert_broken(&case, &[Invariant::I5]);
            }
        }
    }
    let mut case = Case::new(50);
    case.b.retain(|line| line["kind"] != "get_key");
    assert_broken(&case, &[Invariant::I5]);
    let mut case = Case::new(50);
    case.b.iter_mut().filter(|line| line["kind"] == "get_key").for_each(|line| line["http"] = json!(400));
    assert_broken(&case, &[Invariant::I5]);
}

#[test]
fn key_after_close_is_caught() {
    let mut case = Case::new(50);
    let close = case.b.iter_mut().find(|line| line["kind"] == "close").expect("close");
    close["answered"] = json!(2048);
    assert_broken(&case, &[Invariant::I5]);
}

#[test]
fn the_end_of_one_block_and_the_start_of_the_next_are_not_taken_for_invented() {
    let mut case = Case::new(100);
    let mut straddling = vec![0; 32];
    position::fill(3, 7, 200 * CHUNK, &mut straddling[..20]);
    position::fill(3, 8, 0, &mut straddling[20..]);
    let digest = Digest::of(&straddling);
    for lines in [&mut case.a, &mut case.b] {
        let at = lines.len() - 1;
        let mut last = chunk(STREAM, 100);
        (last["sha256"], last["origin"], last["t"]) = (json!(digest), json!([[32]]), json!(2099));
        let mut next = chunk(OTHER, 100);
        let key_of_next = {
            let mut key = vec![0; 32];
            position::fill(3, 8, 12, &mut key);
            key
        };
        (next["sha256"], next["origin"], next["t"]) =
            (json!(Digest::of(&key_of_next)), json!([[3, 8, 12, 32]]), json!(2099));
        let unexplained =
            json!({"kind": "unexplained", "stream": STREAM, "position": 100, "length": 32, "sha256": digest});
        lines.splice(at..at, [last, next, unexplained]);
    }
    let verdict = case.judged();
    assert_eq!(verdict.outcome, Outcome::Agree, "{}", verdict.text());
}
