//! The code that the fuzz targets share: `input` turns bytes into a row and parameters, `oracle` computes the right answers,
//! and `check` compares the answers of each instruction set with them.

pub mod check;
pub mod input;
pub mod oracle;
