//! The troubles that the system meets on the way, and whether it came out of each.

use std::time::Duration;

use crate::stage::picture::Picture;

/// Time after a trouble in which keys may still come that were on their way before. Only later ones tell that it is over.
const SETTLES_IN: Duration = Duration::from_secs(1);

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A block reaches card A and not card B.
    LostBlock,
    /// KMS B answers 503.
    KmsRefuses,
    /// The peer link is cut.
    PeerLinkCut,
}

/// How far a trouble has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ahead,
    On,
    /// Over since a moment.
    Over {
        since: Duration,
    },
    /// Over, and what was on its way has arrived: so many chunks at each end.
    Settled {
        since: Duration,
        chunks: [u64; 2],
    },
    Recovered,
}

/// One trouble. Times count from the first chunk.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    stage: Stage,
}

/// What the demonstration has to do or say about a trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The peer link must be cut, or mended.
    CutPeerLink(bool),
    /// To be told.
    Say(String),
}

impl Trouble {
    pub(super) const fn new(kind: Kind, at: Duration, lasts: Duration) -> Self {
        Self { kind, at, lasts, stage: Stage::Ahead }
    }

    const fn name(&self) -> &'static str {
        match self.kind {
            Kind::LostBlock => "a block was lost on its way to card B",
            Kind::KmsRefuses => "KMS B answers 503",
            Kind::PeerLinkCut => "the link between the two daemons is cut",
        }
    }

    /// True once keys came again at both ends after the trouble.
    pub(super) fn recovered(&self) -> bool {
        self.stage == Stage::Recovered
    }

    /// What has not happened, for the verdict.
    pub(super) fn unfinished(&self) -> String {
        match self.stage {
            Stage::Ahead => format!("this trouble never came: {}", self.name()),
            Stage::On => format!("this trouble never ended: {}", self.name()),
            Stage::Over { .. } | Stage::Settled { .. } => {
                format!("no key at both ends after this trouble: {}", self.name())
            }
            Stage::Recovered => String::new(),
        }
    }

    /// Looks at the system, `now` after the first chunk.
    pub(super) fn look(&mut self, now: Duration, picture: &Picture) -> Vec<News> {
        let (begun, ended) = match self.kind {
            Kind::LostBlock => {
                let [a, b] = picture.cards.each_ref().map(|card| card.blocks_announced);
                // The two cards announce the same block at slightly other moments; two apart is a lost one.
                let lost = self.at <= now && a > b;
                (lost, lost)
            }
            Kind::KmsRefuses => {
                let [_, b] = &picture.kms;
                (b.trouble.is_some(), b.trouble.is_none() && self.stage == Stage::On)
            }
            Kind::PeerLinkCut => (now >= self.at, now >= self.at + self.lasts),
        };
        let mut news = Vec::new();
        if self.stage == Stage::Ahead && begun {
            self.stage = Stage::On;
            news.push(News::Say(format!("trouble: {}", self.name())));
            if self.kind == Kind::PeerLinkCut {
                news.push(News::CutPeerLink(true));
            }
        } else if self.stage == Stage::On && ended {
            self.stage = Stage::Over { since: now };
            if self.kind == Kind::PeerLinkCut {
                news.push(News::CutPeerLink(false));
            }
        } else if let Stage::Over { since } = self.stage
            && now >= since + SETTLES_IN
        {
            self.stage = Stage::Settled { since, chunks: picture.chunks() };
        } else if let Stage::Settled { since, chunks } = self.stage {
            let more = picture.chunks().iter().zip(chunks).all(|(now, then)| *now > then);
            if more {
                self.stage = Stage::Recovered;
                let after = now.saturating_sub(since);
                let text = match self.kind {
                    Kind::LostBlock => "that block was left out at both ends, and keys go on",
                    Kind::KmsRefuses => "KMS B takes keys again, and keys go on at both ends",
                    Kind::PeerLinkCut => "the daemons are connected again, and keys go on at both ends",
                };
                news.push(News::Say(format!("recovered: {text} (seen {:.1} s later)", after.as_secs_f64())));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(chunks: [u64; 2], blocks: [u64; 2], trouble: Option<&str>) -> Picture {
        let mut picture = Picture::default();
        for end in 0..2 {
            picture.kms[end].chunks = chunks[end];
            picture.cards[end].blocks_announced = blocks[end];
        }
        picture.kms[1].trouble = trouble.map(str::to_owned);
        picture
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_cut_after_which_one_end_gets_nothing_is_no_recovery() {
        let mut cut = Trouble::new(Kind::PeerLinkCut, S(5), S(1));
        assert_eq!(cut.look(S(4), &picture([9, 9], [1, 1], None)), []);
        assert!(cut.look(S(5), &picture([9, 9], [1, 1], None)).contains(&News::CutPeerLink(true)));
        assert_eq!(cut.look(S(6), &picture([10, 9], [1, 1], None)), [News::CutPeerLink(false)]);
        assert_eq!(cut.look(S(7), &picture([20, 9], [1, 1], None)), []);
        assert!(!cut.recovered() && cut.unfinished().contains("no key at both ends"));
        assert_eq!(cut.look(S(8), &picture([21, 9], [1, 1], None)), []);
        assert_eq!(cut.look(S(9), &picture([22, 10], [1, 1], None)).len(), 1);
        assert!(cut.recovered());
    }

    #[test]
    fn a_trouble_that_never_came_is_no_recovery() {
        for kind in [Kind::LostBlock, Kind::KmsRefuses] {
            let mut trouble = Trouble::new(kind, S(1), S(1));
            (1..9).for_each(|s| assert_eq!(trouble.look(S(s), &picture([s, s], [s, s], None)), []));
            assert!(!trouble.recovered() && trouble.unfinished().contains("never came"));
        }
        let mut lost = Trouble::new(Kind::LostBlock, S(1), S(0));
        for (s, blocks) in [(2, [7, 6]), (3, [8, 7]), (4, [9, 8]), (5, [9, 8])] {
            lost.look(S(s), &picture([s, s], blocks, None));
        }
        assert!(lost.recovered());
        let mut refuses = Trouble::new(Kind::KmsRefuses, S(1), S(1));
        for (s, trouble) in [(2, Some("503")), (3, None), (4, None), (5, None)] {
            refuses.look(S(s), &picture([s, s], [0, 0], trouble));
        }
        assert!(refuses.recovered());
    }
}
