//! When something is due, and what is told of it.

use crate::agreement::timers::{Timer, Timers};
use crate::interface::KeyStreamId;

#[test]
fn a_time_is_taken_in_its_order_and_not_before_it_has_come() {
    let mut times = Timers::default();
    times.set(Timer::Call(1), 10);
    times.set(Timer::Call(2), 5);
    times.set_earlier(Timer::Call(1), 12);
    assert_eq!((times.first(), times.pop_due(4)), (Some(5), None));
    assert_eq!(times.pop_due(5), Some(Timer::Call(2)));
    assert_eq!(
        (times.first(), times.pop_due(9)),
        (Some(10), None),
        "a later time does not replace an earlier one"
    );
    times.set_earlier(Timer::Call(1), 7);
    times.set_earlier(Timer::Call(3), 8);
    assert_eq!(
        [times.pop_due(7), times.pop_due(7), times.pop_due(8)],
        [Some(Timer::Call(1)), None, Some(Timer::Call(3))]
    );
    assert_eq!((times.first(), times.is_set(Timer::Call(1))), (None, false));
}

#[test]
fn a_time_that_was_set_anew_or_taken_back_does_not_come_as_it_was() {
    let mut times = Timers::default();
    times.set(Timer::Call(1), 5);
    times.set(Timer::Call(1), 9);
    assert_eq!((times.pop_due(8), times.pop_due(9)), (None, Some(Timer::Call(1))));
    let [one, other] = [1, 2].map(KeyStreamId::from_u128);
    let of =
        |id| [Timer::Tokens(id), Timer::Expire(id), Timer::HalfOpen(id), Timer::Dry(id), Timer::Linger(id)];
    for timer in [of(one), of(other)].into_iter().flatten().chain([Timer::Call(1), Timer::Resend]) {
        times.set(timer, 20);
    }
    times.clear_stream(one);
    times.clear(Timer::Resend);
    assert!(of(one).into_iter().chain([Timer::Resend]).all(|timer| !times.is_set(timer)));
    assert!(of(other).into_iter().chain([Timer::Call(1)]).all(|timer| times.is_set(timer)));
    let left = std::iter::from_fn(|| times.pop_due(20)).count();
    assert_eq!(left, 6);
}
