//! The endpoints of the interface: path, methods, and what each may be asked and may answer.

use super::member::Described;
use super::reply::Reply;
use super::{close, get_key, open_connect};
use crate::calls::Answer;
use crate::config::Profile;
use crate::interface::Status;

/// A path of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    OpenConnect,
    GetKey,
    Close,
}

impl Endpoint {
    pub(super) const ALL: [Self; 3] = [Self::OpenConnect, Self::GetKey, Self::Close];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::OpenConnect => "/api/v1/kms/etsi004/open-connect",
            Self::GetKey => "/api/v1/kms/etsi004/get-key",
            Self::Close => "/api/v1/kms/etsi004/close",
        }
    }

    pub(super) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// Methods that are taken, the interface's own first. POST is an extension on get-key and close, for clients that
    /// cannot send a body with GET.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::OpenConnect => "POST",
            Self::GetKey => "GET, POST",
            Self::Close => "PUT, POST",
        }
    }

    pub(super) fn methods(self) -> impl Iterator<Item = &'static str> {
        self.allow().split(", ")
    }

    /// The members of its request.
    pub(super) fn body(self) -> &'static [&'static dyn Described] {
        match self {
            Self::OpenConnect => open_connect::BODY,
            Self::GetKey => get_key::BODY,
            Self::Close => close::BODY,
        }
    }

    /// Status of a request that is at fault itself.
    pub(super) fn refusal(self) -> Status {
        match self {
            Self::OpenConnect => open_connect::REFUSAL,
            Self::GetKey => get_key::REFUSAL,
            Self::Close => close::REFUSAL,
        }
    }

    /// Statuses with which the key agreement may refuse a call.
    pub(super) fn failures(self) -> &'static [Status] {
        match self {
            Self::OpenConnect => open_connect::FAILURES,
            Self::GetKey => get_key::FAILURES,
            Self::Close => close::FAILURES,
        }
    }

    pub(super) fn reply(self, profile: Profile, answer: Answer) -> Reply {
        if let Answer::Refused { status, .. } = &answer
            && !self.failures().contains(status)
        {
            log::error!(
                id = "api.undocumented_answer";
                "{} is answered with status {status:?}, which its OpenAPI document does not name",
                self.path()
            );
        }
        match self {
            Self::OpenConnect => open_connect::reply(profile, answer),
            Self::GetKey => get_key::reply(profile, answer),
            Self::Close => close::reply(profile, answer),
        }
    }
}
