//! Commands and their outcomes (clauses CMD).

use crate::state::values;

values! {
    /// What the host asks for, bits 15..0 of `COMMAND` (CMD-1).
    Opcode {
        /// Latch the ring registers, replay what is retained, then deliver (CMD-5).
        Start = 1,
        /// Finish DMA in flight and go to `Stopped` (CMD-6).
        Stop = 2,
        /// Erase every key held (CMD-7, ZER-1).
        Zeroize = 3,
        /// Reset the whole card; drops what is retained and ends the session (CMD-8).
        Reset = 4,
        /// Write the self-test pattern to slot 0 by DMA and raise the control vector (CMD-9).
        SelfTest = 5,
        /// Raise the vector named by `COMMAND_ARGUMENT` (CMD-10).
        Raise = 6,
    }
}

values! {
    /// How a command ended, bits 15..0 of `COMMAND_DONE` (CMD-3).
    Outcome {
        /// Done.
        Done = 1,
        /// The opcode is not defined.
        UnknownOpcode = 2,
        /// Not allowed in the present state.
        WrongState = 3,
        /// The ring registers or the argument break a rule.
        BadConfiguration = 4,
        /// Tried and failed; see `FAULT`.
        Failed = 5,
    }
}
