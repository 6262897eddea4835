//! What the fuzz targets share: how bytes become a row and parameters (`input`), what the right answers are (`oracle`), and
//! the comparison of each instruction set's answers with them (`check`).

pub mod check;
pub mod input;
pub mod oracle;
