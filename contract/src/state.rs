//! Values of state-like registers (clauses ST, LNK and ID-6).

/// A register held a value that the contract does not define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undefined(pub u32);

macro_rules! values {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Every defined value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value as it stands in the register.
            #[must_use]
            pub const fn value(self) -> u32 { self as u32 }
        }

        impl TryFrom<u32> for $name {
            type Error = $crate::state::Undefined;
            fn try_from(value: u32) -> Result<Self, Self::Error> {
                match value {
                    $($value => Ok(Self::$variant),)*
                    other => Err($crate::state::Undefined(other)),
                }
            }
        }
    };
}
pub(crate) use values;

values! {
    /// Which half of the link the card is (ID-6).
    Role {
        /// Prepares and sends quantum states.
        Transmitter = 1,
        /// Measures quantum states.
        Receiver = 2,
    }
}

values! {
    /// Life cycle (ST-1).
    State {
        /// Initialising after power-on or a reset.
        Boot = 1,
        /// Ready; no DMA is in flight and none will start.
        Stopped = 2,
        /// Delivering blocks.
        Running = 3,
        /// Finishing DMA in flight.
        Stopping = 4,
        /// Erasing every key it holds.
        Zeroizing = 5,
        /// Everything is erased; only RESET and power-on go on from here, a function reset comes back here (FLR-3).
        Zeroized = 6,
        /// Out of order, see `FAULT`; no DMA is in flight and none will start.
        Fault = 7,
    }
}

values! {
    /// Why the card is in [`State::Fault`] (ST-9).
    Fault {
        /// No fault.
        None = 0,
        /// The initial self-test failed.
        SelfTest = 1,
        /// A DMA access was refused or failed.
        Dma = 2,
        /// The host broke a rule of the rings.
        Ring = 3,
        /// Non-volatile memory failed; session names or the cell can no longer be trusted.
        NonVolatile = 4,
        /// The tamper sensor tripped; keys were erased.
        Tamper = 5,
        /// Temperature out of range.
        Temperature = 6,
        /// Any other internal fault.
        Internal = 7,
    }
}

values! {
    /// State of the QKD link (LNK-1).
    LinkState {
        /// No light.
        Off = 0,
        /// Lasers and detectors are being brought up.
        Initialising = 1,
        /// Interferometer, timing or polarisation is being aligned.
        Aligning = 2,
        /// Secret key is being distilled.
        Distilling = 3,
        /// The classical channel has run out of authentication key.
        NoAuthenticationKey = 4,
        /// The optical part is out of order.
        Fault = 5,
    }
}
