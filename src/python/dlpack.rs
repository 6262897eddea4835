//! Lets numpy read bfloat16 tensors through DLPack, although it has no such type.
//!
//! In DLPack, an object hands out its memory as a capsule that holds a C structure, made for this one exchange. If the
//! structure says that the elements are bfloat16, we change it to say that they are unsigned 16-bit integers, which numpy
//! accepts. The elements themselves stay as they are. The structures are those of `dlpack.h`, whose layout is fixed within a
//! major version.
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

/// `DLTensor`, which is the first field of a `DLManagedTensor`
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
/// Leaves other element types alone, and capsules that were used before, and objects that are not DLPack capsules.
#[pyfunction]
pub fn bfloat16_as_bits(capsule: &Bound<'_, PyAny>) -> bool {
    let Ok(capsule) = capsule.cast::<PyCapsule>() else { return false };
    let plain = capsule.pointer_checked(Some(c"dltensor")).map(|pointer| pointer.cast::<Tensor>().as_ptr());
    let versioned =
        capsule.pointer_checked(Some(c"dltensor_versioned")).map(|pointer| pointer.cast::<VersionedTensor>().as_ptr());
    // SAFETY: the protocol says that a capsule with one of these two names points to this structure, and that the structure
    // belongs to the consumer, which is us, until the capsule is renamed. `pointer_checked` has checked the name and that the
    // pointer is not null. We know the layout of a versioned structure for major version 1 only, so the version is read
    // first. The reads and writes do not rely on alignment. No Python code runs, so nothing else uses the capsule meanwhile.
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
