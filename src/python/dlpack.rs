//! bfloat16 in the DLPack exchange format, for numpy, which has no such type and refuses it.
//!
//! An object hands out its memory as a capsule that holds a C structure, made for this one exchange. Where the structure says
//! that the elements are bfloat16, it is changed to say that they are unsigned integers of 16 bits, which numpy reads. The
//! elements stay as they are. The structures are those of `dlpack.h`, whose layout is fixed within a major version.
#![allow(unsafe_code)]

use std::ffi::c_void;

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

const UNSIGNED_INTEGER: u8 = 1;
const BFLOAT16: DataType = DataType { code: 4, bits: 16, lanes: 1 };

/// `DLDataType`
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`, with which a `DLManagedTensor` begins
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: [i32; 2],
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensorVersioned`
#[repr(C)]
struct VersionedTensor {
    version: [u32; 2],
    manager: *mut c_void,
    deleter: *mut c_void,
    flags: u64,
    tensor: Tensor,
}

/// Relabels the elements of a DLPack capsule as unsigned integers if they are bfloat16, and says whether they were.
///
/// Anything else is left as it is: other types of elements, capsules that have been used, and what is not a DLPack capsule.
#[pyfunction]
pub fn bfloat16_as_bits(capsule: &Bound<'_, PyAny>) -> bool {
    let Ok(capsule) = capsule.cast::<PyCapsule>() else { return false };
    let plain = capsule.pointer_checked(Some(c"dltensor")).map(|pointer| pointer.cast::<Tensor>().as_ptr());
    let versioned =
        capsule.pointer_checked(Some(c"dltensor_versioned")).map(|pointer| pointer.cast::<VersionedTensor>().as_ptr());
    // SAFETY: a capsule of one of these two names holds, by the protocol, a pointer to this structure, which belongs to the
    // consumer, hence to this function, until the capsule is renamed; names and null pointers have been checked. The layout of
    // a versioned one is known only within the major version 1, and nothing but the version is read before that is known.
    // Alignment is not relied on. No Python code runs, so nothing else uses the capsule meanwhile.
    unsafe {
        let dtype = match (plain, versioned) {
            (Ok(tensor), _) => &raw mut (*tensor).dtype,
            (_, Ok(tensor)) if (&raw const (*tensor).version).read_unaligned()[0] == 1 => {
                &raw mut (*tensor).tensor.dtype
            }
            _ => return false,
        };
        let is_bfloat16 = dtype.read_unaligned() == BFLOAT16;
        if is_bfloat16 {
            dtype.write_unaligned(DataType { code: UNSIGNED_INTEGER, ..BFLOAT16 });
        }
        is_bfloat16
    }
}
