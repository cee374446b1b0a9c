//! How many requests may be on their way at once.

/// Chunks to be accepted before a width that failed is tried again; doubled at each further failure.
const PATIENCE: u64 = 1024;
const GREATEST_PATIENCE: u64 = PATIENCE << 16;

/// Begins at one request, doubles while the KMS keeps up, falls back to one when it does not, and remembers for a
/// while what was too wide.
#[derive(Debug)]
pub(super) struct Window {
    most_requests: usize,
    most_octets: usize,
    width: usize,
    /// Widest that is tried for now.
    limit: usize,
    /// Accepted since the width was last changed.
    accepted: usize,
    /// Accepted since the last setback.
    in_peace: u64,
    patience: u64,
    filling: bool,
}

impl Window {
    pub(super) fn new(most_requests: u32, most_octets: u32) -> Self {
        let most_requests = (most_requests as usize).max(1);
        Self {
            most_requests,
            most_octets: most_octets as usize,
            width: 1,
            limit: most_requests,
            accepted: 0,
            in_peace: 0,
            patience: PATIENCE,
            filling: true,
        }
    }

    /// Requests that may be on their way at once.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Whether a request of `octets` may follow `requests` of together `octets_out` on their way.
    ///
    /// A full window is not filled up again one by one but when half of it is free: that many requests share one
    /// write.
    pub(super) fn admits(&mut self, requests: usize, octets_out: usize, octets: usize) -> bool {
        if requests == 0 {
            self.filling = true;
            return true;
        }
        let full = requests >= self.width || octets_out + octets > self.most_octets;
        if full {
            self.filling = false;
        } else if !self.filling {
            self.filling = requests <= self.width / 2 && octets_out <= self.most_octets / 2;
        }
        self.filling
    }

    /// The KMS has accepted a request.
    pub(super) fn accepted(&mut self) {
        self.accepted += 1;
        self.in_peace += 1;
        if self.limit < self.most_requests && self.in_peace >= self.patience {
            self.limit = (self.limit * 2).min(self.most_requests);
            self.in_peace = 0;
        }
        if self.width < self.limit && self.accepted >= self.width {
            self.width = (self.width * 2).min(self.limit);
            self.accepted = 0;
        }
    }

    /// The KMS failed or closed with `requests` on their way and not answered.
    pub(super) fn setback(&mut self, requests: usize) {
        // A width that has long done well is not to blame.
        if requests > 0 && self.width > 1 && self.accepted < self.width * 2 {
            self.limit = (self.width / 2).max(1);
            if self.in_peace < self.patience.saturating_mul(4) {
                self.patience = (self.patience * 2).min(GREATEST_PATIENCE);
            } else {
                self.patience = PATIENCE;
            }
        }
        self.width = 1;
        self.accepted = 0;
        self.in_peace = 0;
        self.filling = true;
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    fn accept(window: &mut Window, times: usize) {
        for _ in 0..times {
            window.accepted();
        }
    }

    #[test]
    fn the_first_chunk_travels_alone_and_the_window_widens_while_the_kms_keeps_up() {
        let mut window = Window::new(256, 90_000);
        assert!(window.admits(0, 0, 300));
        assert!(!window.admits(1, 300, 300));
        accept(&mut window, 1);
        assert_eq!(window.width(), 2);
        accept(&mut window, 2 + 4 + 8 + 16 + 32 + 64 + 128);
        assert_eq!(window.width(), 256);
        accept(&mut window, 10_000);
        assert_eq!(window.width(), 256);
    }

    #[test]
    fn octets_in_flight_stay_bounded_and_a_larger_chunk_travels_alone() {
        let mut window = Window::new(256, 90_000);
        accept(&mut window, 1000);
        assert!(window.admits(1, 300, 300));
        assert!(window.admits(3, 80_000, 10_000));
        assert!(!window.admits(3, 80_001, 10_000));
        assert!(window.admits(0, 0, 1_400_000));
        assert!(!window.admits(1, 1_400_000, 300));
    }

    #[test]
    fn a_kms_that_drops_pipelined_requests_gets_one_at_a_time_for_long() {
        let mut window = Window::new(256, 90_000);
        accept(&mut window, 1);
        let mut tries = 0;
        for _ in 0..20_000 {
            if window.width() > 1 {
                tries += 1;
                window.setback(2);
            }
            accept(&mut window, 1);
        }
        assert!((2..8).contains(&tries), "tried {tries} times");
    }

    #[test]
    fn a_kms_that_was_away_once_gets_its_width_back() {
        let mut window = Window::new(256, 90_000);
        accept(&mut window, 511);
        window.setback(256);
        assert_eq!(window.width(), 1);
        accept(&mut window, 300);
        assert_eq!(window.width(), 128);
        accept(&mut window, 5_000);
        assert_eq!(window.width(), 256);
    }

    #[test]
    fn a_kms_that_closes_every_thousand_requests_keeps_its_width() {
        let mut window = Window::new(256, 90_000);
        for _ in 0..50 {
            accept(&mut window, 1000);
            assert_eq!(window.width(), 256);
            window.setback(200);
            assert_eq!(window.width(), 1);
        }
    }

    #[test]
    fn a_full_window_is_refilled_in_one_go() {
        let mut window = Window::new(8, 90_000);
        accept(&mut window, 100);
        for requests in 0..8 {
            assert!(window.admits(requests, requests * 300, 300));
        }
        for requests in (5..=8).rev() {
            assert!(!window.admits(requests, requests * 300, 300));
        }
        for requests in 4..8 {
            assert!(window.admits(requests, requests * 300, 300));
        }
    }
}
