//! PCI identity, base address registers and interrupt vectors (clauses PCI-1 to PCI-9).

/// Placeholder vendor identifier, until a vendor's own is configured (PCI-1).
pub const VENDOR_ID: u16 = 0x5144;
/// Placeholder device identifier (PCI-1).
pub const DEVICE_ID: u16 = 0x0001;
/// Revision identifier (PCI-1).
pub const REVISION_ID: u8 = 0x01;
/// Class code: encryption controller, other (PCI-2).
pub const CLASS_CODE: u32 = 0x10_80_00;

/// BAR that holds the registers (PCI-3).
pub const REGISTER_BAR: u32 = 0;
/// Size of the register BAR in bytes (PCI-3).
pub const REGISTER_BAR_BYTES: u64 = 0x1_0000;
/// BAR that holds the MSI-X table and its pending bits (PCI-4).
pub const MSIX_BAR: u32 = 2;
/// Size of the MSI-X BAR in bytes (PCI-4).
pub const MSIX_BAR_BYTES: u64 = 0x1000;
/// Offset of the MSI-X table in its BAR (PCI-4).
pub const MSIX_TABLE_OFFSET: u64 = 0x000;
/// Offset of the pending bit array in the MSI-X BAR (PCI-4).
pub const MSIX_PBA_OFFSET: u64 = 0x800;

/// Number of MSI-X vectors (PCI-5).
pub const VECTORS: u32 = 2;
/// Vector raised when an armed event has been written (PCI-6, INT-1).
pub const EVENT_VECTOR: u32 = 0;
/// Vector raised when a command is done, the state changes or a fault is entered (PCI-6, INT-5).
pub const CONTROL_VECTOR: u32 = 1;
