//! Numpy arrays as rows that the kernels read and write.
//!
//! An ordinary numpy array is read in place, without running any Python code. Whatever else is passed as logits, `_arrays.py`
//! turns into such an array; bfloat16 values become their bits, as uint16.
//!
//! # What can happen to an array during a call
//!
//! [`Logits::rows`] and [`Out::take`] read the array's fields in C, check them, and keep the address of its memory. From then
//! on no Python code runs in this thread until the kernels have finished (`mod.rs` has the order). But other threads run
//! Python code while the GIL is released, and signal handlers run between two parts of a long batch. That code may:
//!
//! - **drop the array, or change its shape or type**: this is harmless, because the call holds a reference to the array and
//!   has its own copy of the fields;
//! - **resize the array**: numpy refuses, even with `refcheck=False`, to resize an array that has a weak reference, and the
//!   call makes one ([`Pin`]). torch refuses to resize a tensor that was given to numpy;
//! - **write to the logits**: the call returns a wrong token or raises an error (see `kernels/mod.rs`);
//! - **write to the same `out` with toksample**: the second call raises an error that names `out` ([`Writing`]).
//!
//! One case remains: memory that its owner frees while others still refer to it (by calling `munmap`, or by assigning to
//! `array.data`). No library that reads memory in place can survive that.
//!
//! All `unsafe` code of the bindings is in this file and in `dlpack.rs`.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::{Mutex, TryLockError};

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use numpy::npyffi::{self, NPY_TYPES, PY_ARRAY_API};
use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyWeakrefReference};

use super::errors::{row_error, value_error};
use crate::MAX_TOKENS;
use crate::error::reserve;
use crate::logit::Logit;

// ---- types of elements ----------------------------------------------------------------------------------------------

/// A type of logit, and the type that numpy arrays store it as.
pub(super) trait ArrayElement: Logit {
    type Stored: Element + Copy + Send + Sync;
    fn slice(stored: &[Self::Stored]) -> &[Self];
    fn slice_mut(stored: &mut [Self::Stored]) -> &mut [Self];
}

impl ArrayElement for f32 {
    type Stored = f32;
    fn slice(stored: &[f32]) -> &[f32] {
        stored
    }
    fn slice_mut(stored: &mut [f32]) -> &mut [f32] {
        stored
    }
}

impl ArrayElement for f16 {
    type Stored = f16;
    fn slice(stored: &[f16]) -> &[f16] {
        stored
    }
    fn slice_mut(stored: &mut [f16]) -> &mut [f16] {
        stored
    }
}

impl ArrayElement for bf16 {
    type Stored = u16;
    fn slice(stored: &[u16]) -> &[bf16] {
        stored.reinterpret_cast()
    }
    fn slice_mut(stored: &mut [u16]) -> &mut [bf16] {
        stored.reinterpret_cast_mut()
    }
}

/// The element type of the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ElementType {
    F32,
    F16,
    Bf16,
}

impl ElementType {
    /// The element type of an array, where uint16 stands for the bits of bfloat16. None for any other type, and for elements
    /// in the other byte order.
    fn of(array: &Bound<'_, PyUntypedArray>) -> Option<Self> {
        const F32: i32 = NPY_TYPES::NPY_FLOAT as i32;
        const F16: i32 = NPY_TYPES::NPY_HALF as i32;
        const BITS: i32 = NPY_TYPES::NPY_USHORT as i32;
        let dtype = array.dtype();
        let element = match dtype.num() {
            F32 => ElementType::F32,
            F16 => ElementType::F16,
            BITS => ElementType::Bf16,
            _ => return None,
        };
        (dtype.is_native_byteorder() == Some(true)).then_some(element)
    }

    /// The number of bytes of an element.
    fn size(self) -> usize {
        if self == ElementType::F32 { 4 } else { 2 }
    }
}

/// Runs `$body` with `$t` as the type of the logits' elements.
macro_rules! with_element {
    ($logits:expr, |$t:ident| $body:expr) => {
        match $logits.element {
            $crate::python::arrays::ElementType::F32 => {
                type $t = f32;
                $body
            }
            $crate::python::arrays::ElementType::F16 => {
                type $t = half::f16;
                $body
            }
            $crate::python::arrays::ElementType::Bf16 => {
                type $t = half::bf16;
                $body
            }
        }
    };
}
pub(super) use with_element;

// ---- an array's fields ----------------------------------------------------------------------------------------------

/// A copy of an array's fields.
struct Fields {
    data: *mut u8,
    is_writable: bool,
}

impl Fields {
    fn of(array: &Bound<'_, PyUntypedArray>) -> Self {
        // SAFETY: `array` is a numpy array. The GIL is held, and no Python code runs while its fields are read.
        let fields = unsafe { &*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr().cast_const()) };
        Fields { data: fields.data.cast(), is_writable: fields.flags & npyffi::NPY_ARRAY_WRITEABLE != 0 }
    }
}

/// The array that this one is a view of; None if it owns its memory, or if the owner is not an array.
fn base<'py>(array: &Bound<'py, PyUntypedArray>) -> Option<Bound<'py, PyUntypedArray>> {
    // SAFETY: as in `Fields::of`. The base is null, or an object that the array keeps alive.
    let base = unsafe {
        let base = (*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr().cast_const())).base;
        Bound::from_borrowed_ptr_or_opt(array.py(), base)?
    };
    base.cast_into().ok()
}

/// Gives the values of an array to a function, which must not run any Python code; None if they do not lie side by side.
pub(super) fn with_values<P: Element, R>(array: &Bound<'_, PyArray1<P>>, read: impl FnOnce(&[P]) -> R) -> Option<R> {
    // SAFETY: the GIL is held, and no Python code runs while the values are read. Without a GIL, another thread may write to them,
    // as it may write to the logits; no address depends on them.
    unsafe { array.as_slice() }.ok().map(read)
}

/// The range of addresses that the elements of an array lie in.
fn extent(array: &Bound<'_, PyUntypedArray>) -> Range<usize> {
    let data = Fields::of(array).data as isize;
    let (mut low, mut high) = (data, data + array.dtype().itemsize() as isize);
    for (&count, &stride) in array.shape().iter().zip(array.strides()) {
        match count {
            0 => return 0..0,
            _ if stride < 0 => low += (count as isize - 1) * stride,
            _ => high += (count as isize - 1) * stride,
        }
    }
    low as usize..high as usize
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

/// True for a numpy scalar of this type. (numpy's float64 is also a Python float.)
pub(super) fn is_numpy_scalar(value: &Bound<'_, PyAny>, kind: npyffi::NpyTypes) -> bool {
    // SAFETY: the object is alive, and numpy's types live as long as the process.
    unsafe { pyo3::ffi::PyObject_TypeCheck(value.as_ptr(), npyffi::get_type_object(value.py(), kind)) != 0 }
}

fn is_exactly_an_array(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive, and only its type is read.
    unsafe { npyffi::PyArray_CheckExact(object.py(), object.as_ptr()) != 0 }
}

/// Formats a shape as Python does.
pub(super) fn shape_text(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

// ---- logits ---------------------------------------------------------------------------------------------------------

/// The logits of a call, as an array that the kernels can read.
pub(super) struct Logits<'py> {
    array: Bound<'py, PyUntypedArray>,
    pub(super) element: ElementType,
    pub(super) shape: Shape,
    /// True if the edits that the caller asks for were already applied.
    pub(super) is_edited: bool,
    /// The caller's own arrays, because `array` may be a copy of them.
    sources: Vec<Bound<'py, PyUntypedArray>>,
}

/// The shape of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) is_batch: bool,
    pub(super) rows: usize,
    pub(super) tokens: usize,
}

impl Shape {
    /// The shape of an array; None if logits cannot have this shape.
    fn of(array: &Bound<'_, PyUntypedArray>) -> Option<Self> {
        let shape = match *array.shape() {
            [tokens] => Shape { is_batch: false, rows: 1, tokens },
            [rows, tokens] => Shape { is_batch: true, rows, tokens },
            _ => return None,
        };
        (1..=MAX_TOKENS).contains(&shape.tokens).then_some(shape)
    }

    /// The dimensions of an array that holds one number for each row.
    pub(super) fn per_row(&self) -> &[usize] {
        if self.is_batch { slice::from_ref(&self.rows) } else { &[] }
    }

    /// The dimensions of an array that holds `width` numbers for each row.
    pub(super) fn wide<'a>(&self, width: usize, dimensions: &'a mut [usize; 2]) -> &'a [usize] {
        *dimensions = [self.rows, width];
        if self.is_batch { &dimensions[..] } else { &dimensions[1..] }
    }

    /// The number of logits in all rows together.
    pub(super) fn logits(&self) -> usize {
        self.rows.saturating_mul(self.tokens)
    }
}

/// The function `_arrays.as_native`, which turns anything that may be passed as logits into an array for the kernels.
static AS_NATIVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl<'py> Logits<'py> {
    /// Reads logits that will not be edited. May run Python code.
    #[inline]
    pub(super) fn read(logits: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::read_to_edit(logits, || Ok(None))
    }

    /// Reads logits that will be edited. float64 logits must be edited before they are rounded, so the Python code that
    /// converts them does both, with the parameters that `edits` returns. May run Python code.
    #[inline]
    pub(super) fn read_to_edit(
        logits: &Bound<'py, PyAny>,
        edits: impl FnOnce() -> PyResult<Option<Bound<'py, PyDict>>>,
    ) -> PyResult<Self> {
        if is_exactly_an_array(logits)
            && let Ok(array) = logits.cast::<PyUntypedArray>()
            && let Some(element @ (ElementType::F32 | ElementType::F16)) = ElementType::of(array)
            && is_readable(array, element.size())
            && let Some(shape) = Shape::of(array)
        {
            return Ok(Logits { array: array.clone(), element, shape, is_edited: false, sources: Vec::new() });
        }
        Self::convert(logits, edits()?)
    }

    #[cold]
    fn convert(logits: &Bound<'py, PyAny>, edits: Option<Bound<'py, PyDict>>) -> PyResult<Self> {
        let as_native = AS_NATIVE.import(logits.py(), "toksample._arrays", "as_native")?;
        let converted = as_native.call1((logits, edits))?.cast_into::<PyTuple>()?;
        let array = converted.get_item(0)?.cast_into::<PyUntypedArray>()?;
        let sources = converted.get_item(1)?.extract()?;
        let element = ElementType::of(&array).ok_or_else(|| value_error("logits could not be converted"))?;
        let Some(shape) = Shape::of(&array) else {
            return Err(value_error(format!(
                "logits must have 1 to {MAX_TOKENS} tokens a row, got shape {}",
                shape_text(array.shape())
            )));
        };
        let is_edited = converted.get_item(2)?.extract()?;
        Ok(Logits { array, element, shape, is_edited, sources })
    }

    /// Checks the array again and returns its rows. No Python code may run from here until they are no longer used.
    pub(super) fn rows<T: ArrayElement>(&self) -> PyResult<Rows<'_, T::Stored>> {
        let changed =
            || value_error("logits must keep their shape and type during the call, got an array that changed");
        let (shape, element) = (Shape::of(&self.array), ElementType::of(&self.array));
        if shape != Some(self.shape)
            || element != Some(self.element)
            || size_of::<T::Stored>() != self.element.size()
            || !is_readable(&self.array, self.element.size())
        {
            return Err(changed());
        }
        let stride = if self.shape.is_batch { self.array.strides()[0] } else { 0 };
        let Shape { rows, tokens, .. } = self.shape;
        Ok(Rows { data: Fields::of(&self.array).data, stride, rows, width: tokens, array: PhantomData })
    }

    /// Stops numpy from resizing the logits.
    pub(super) fn pin(&self) -> PyResult<Pin<'py>> {
        Pin::new(&self.array)
    }

    /// True if the logits, or the caller's arrays that they were copied from, share any of these addresses.
    fn overlaps(&self, memory: &Range<usize>) -> bool {
        [&self.array].into_iter().chain(&self.sources).any(|array| overlap(&extent(array), memory))
    }
}

/// The bitmask of each row, as an array that the kernels can read.
pub(super) struct Bitmask<'py> {
    array: Bound<'py, PyUntypedArray>,
    rows: usize,
    words: usize,
}

impl<'py> Bitmask<'py> {
    /// None if the kernels cannot read this array in place.
    pub(super) fn read(array: &Bound<'py, PyAny>, shape: Shape) -> Option<Self> {
        let array = array.cast::<PyUntypedArray>().ok().filter(|array| is_exactly_an_array(array))?;
        let (rows, words) = match *array.shape() {
            [words] if !shape.is_batch => (1, words),
            [rows, words] if rows == shape.rows => (rows, words),
            _ => return None,
        };
        let bitmask = Bitmask { array: array.clone(), rows, words };
        ((1..=shape.tokens.div_ceil(32)).contains(&words) && bitmask.is_readable()).then_some(bitmask)
    }

    fn is_readable(&self) -> bool {
        let dtype = self.array.dtype();
        // numpy has two types of this size where a C long has 32 bits, as on Windows, and int32 may be either.
        matches!(dtype.kind(), b'i' | b'u')
            && dtype.itemsize() == size_of::<u32>()
            && dtype.is_native_byteorder() == Some(true)
            && is_readable(&self.array, size_of::<u32>())
    }

    /// Checks the array again and returns its rows. No Python code may run from here until they are no longer used.
    pub(super) fn rows(&self) -> PyResult<Rows<'_, u32>> {
        let shape = self.array.shape();
        let same = shape.last() == Some(&self.words) && self.array.len() == self.rows * self.words && shape.len() <= 2;
        if !same || !self.is_readable() {
            return Err(value_error("bitmask must keep its shape and type during the call, got an array that changed"));
        }
        let stride = if shape.len() == 2 { self.array.strides()[0] } else { 0 };
        let data = Fields::of(&self.array).data;
        Ok(Rows { data, stride, rows: self.rows, width: self.words, array: PhantomData })
    }

    /// Stops numpy from resizing the bitmask.
    pub(super) fn pin(&self) -> PyResult<Pin<'py>> {
        Pin::new(&self.array)
    }
}

/// True if each row of an array is contiguous and every element is aligned to its size.
fn is_readable(array: &Bound<'_, PyUntypedArray>, size: usize) -> bool {
    let (shape, strides) = (array.shape(), array.strides());
    let (Some(&tokens), Some((&last, outer))) = (shape.last(), strides.split_last()) else { return false };
    array.is_empty() // nothing is read, so the strides do not matter
        || (tokens == 1 || last == size as isize)
            && (Fields::of(array).data as usize).is_multiple_of(size)
            && outer.iter().all(|&stride| stride.unsigned_abs().is_multiple_of(size))
}

/// True if the elements of an array have this type, in the byte order of this machine.
fn is_stored_as<P: Element>(array: &Bound<'_, PyUntypedArray>) -> bool {
    array.dtype().is_equiv_to(&P::get_dtype(array.py()))
}

/// The rows of an array, in the caller's memory.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, P> {
    data: *const u8,
    stride: isize,
    rows: usize,
    width: usize,
    array: PhantomData<&'a [P]>,
}

// SAFETY: a `Rows` stands for shared slices, which any thread may use.
unsafe impl<P: Sync> Send for Rows<'_, P> {}
// SAFETY: as above.
unsafe impl<P: Sync> Sync for Rows<'_, P> {}

impl<'a, P> Rows<'a, P> {
    /// Returns a row. Panics if there is no such row.
    #[inline]
    pub(super) fn row(&self, index: usize) -> &'a [P] {
        assert!(index < self.rows);
        // SAFETY: whoever made this `Rows` has checked that the array has this row, contiguous and aligned, and keeps the
        // array alive. The memory is not freed, but it may be written to: the head of this file says what follows from that.
        unsafe {
            let start = self.data.offset(index as isize * self.stride);
            slice::from_raw_parts(start.cast::<P>(), self.width)
        }
    }
}

/// A weak reference to the array that owns the memory. numpy does not resize an array that has one.
pub(super) struct Pin<'py>(#[allow(dead_code)] Bound<'py, PyWeakrefReference>);

impl<'py> Pin<'py> {
    pub(super) fn new<P>(array: &Bound<'py, P>) -> PyResult<Self> {
        let mut owner = array.as_any().cast::<PyUntypedArray>()?.clone();
        while let Some(next) = base(&owner) {
            owner = next;
        }
        PyWeakrefReference::new(owner.as_any()).map(Pin)
    }
}

/// Copies and converts the elements of a contiguous array. Returns None if one cannot be converted.
pub(super) fn convert_all<P: Element + Copy, C>(
    array: &Bound<'_, PyArray1<P>>,
    convert: impl Fn(P) -> Option<C>,
) -> PyResult<Option<Vec<C>>> {
    let mut converted = Vec::new();
    reserve(&mut converted, array.len()).map_err(row_error)?;
    // SAFETY: the array is alive, and no Python code runs while its elements are read.
    for &element in unsafe { array.as_slice() }.map_err(value_error)? {
        match convert(element) {
            Some(element) => converted.push(element),
            None => return Ok(None),
        }
    }
    Ok(Some(converted))
}

// ---- results --------------------------------------------------------------------------------------------------------

/// Returns a new array of zeros, or a MemoryError if there is no memory for it. May run Python code.
pub(super) fn zeros<'py, P: Element>(py: Python<'py>, shape: &[usize]) -> PyResult<Bound<'py, PyArrayDyn<P>>> {
    let mut dimensions: Vec<npyffi::npy_intp> = shape.iter().map(|&n| n as npyffi::npy_intp).collect();
    // SAFETY: the length passed is that of `dimensions`, and numpy takes over the reference to the type.
    unsafe {
        let dtype = P::get_dtype(py).into_dtype_ptr();
        let array = PY_ARRAY_API.PyArray_Zeros(py, dimensions.len() as _, dimensions.as_mut_ptr(), dtype, 0);
        Ok(Bound::from_owned_ptr_or_err(py, array)?.cast_into_unchecked())
    }
}

/// All elements of an array that `zeros` made and nobody else has seen.
pub(super) fn slice_of_new<'a, P: Element + Copy>(array: &'a mut Bound<'_, PyArrayDyn<P>>) -> &'a mut [P] {
    let (length, data) = (array.len(), Fields::of(array.as_untyped()).data);
    // SAFETY: a new array is contiguous, aligned and initialized, and `array` is the only reference to it.
    unsafe { slice::from_raw_parts_mut(data.cast(), length) }
}

/// The array that the caller passed for the results.
pub(super) struct Out<'a, 'py> {
    pub(super) object: &'a Bound<'py, PyAny>,
    array: &'a Bound<'py, PyUntypedArray>,
}

impl<'a, 'py> Out<'a, 'py> {
    pub(super) fn read(out: &'a Bound<'py, PyAny>, dtype: &str, shape: &[usize]) -> PyResult<Self> {
        match out.cast::<PyUntypedArray>() {
            Ok(array) => Ok(Out { object: out, array }),
            Err(_) => Err(PyTypeError::new_err(format!("{}, got {}", rule(dtype, shape), out.get_type().name()?))),
        }
    }

    /// Stops numpy from resizing the array.
    pub(super) fn pin(&self) -> PyResult<Pin<'py>> {
        Pin::new(self.array)
    }

    /// Takes the elements of the array for writing, if it has this type and shape and can be written to. No Python code may
    /// run until they are no longer used, except to format an error.
    pub(super) fn take<P: Element + Copy>(
        &self,
        dtype: &str,
        shape: &[usize],
        logits: &Logits<'_>,
    ) -> PyResult<Writing<'a, P>> {
        let array = self.array;
        let wrong = |what: &str| value_error(format!("{}, got {what}", rule(dtype, shape)));
        let other = || format!("{} of shape {}", array.dtype(), shape_text(array.shape()));
        if !is_stored_as::<P>(array) {
            return Err(PyTypeError::new_err(format!("{}, got {}", rule(dtype, shape), other())));
        }
        if array.shape() != shape {
            return Err(wrong(&other()));
        }
        let (fields, memory) = (Fields::of(array), extent(array));
        if !array.is_c_contiguous() {
            return Err(wrong("one that is not contiguous"));
        }
        if !(fields.data as usize).is_multiple_of(align_of::<P>()) {
            return Err(wrong("one that is not aligned"));
        }
        if !fields.is_writable {
            return Err(wrong("one that is read-only"));
        }
        if logits.overlaps(&memory) {
            return Err(value_error("out must not share memory with logits, got one that does"));
        }
        Writing::begin(memory, fields.data.cast(), array.len())
            .ok_or_else(|| value_error("out must not be in use by another call, got one that is"))
    }
}

fn rule(dtype: &str, shape: &[usize]) -> String {
    format!("out must be a writable C-contiguous {dtype} array of shape {}", shape_text(shape))
}

/// Memory of the caller that this call is writing to. No two calls can hold the same memory.
pub(super) struct Writing<'a, P> {
    memory: Range<usize>,
    data: *mut P,
    length: usize,
    array: PhantomData<&'a mut [P]>,
}

/// The memory that calls are writing to, and their process: a forked child inherits its parent's entries and ignores them.
static IN_USE: Mutex<Vec<(u32, Range<usize>)>> = Mutex::new(Vec::new());

/// Runs `work` on [`IN_USE`]. The lock is only held for some nanoseconds, but a fork may copy it while it is held, and then
/// it stays locked in the child for ever. So this gives up after a while and returns None.
fn with_memory_in_use<R>(work: impl FnOnce(&mut Vec<(u32, Range<usize>)>) -> R) -> Option<R> {
    for _ in 0..100_000 {
        match IN_USE.try_lock() {
            Ok(mut in_use) => return Some(work(&mut in_use)),
            Err(TryLockError::Poisoned(poisoned)) => return Some(work(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

impl<P> Writing<'_, P> {
    /// None if another call is writing to any of this memory.
    fn begin(memory: Range<usize>, data: *mut P, length: usize) -> Option<Self> {
        let process = std::process::id();
        let is_free = with_memory_in_use(|in_use| {
            in_use.retain(|&(id, _)| id == process);
            let is_free = !in_use.iter().any(|(_, other)| overlap(other, &memory));
            if is_free {
                in_use.push((process, memory.clone()));
            }
            is_free
        });
        is_free?.then_some(Writing { memory, data, length, array: PhantomData })
    }

    pub(super) fn slice(&mut self) -> &mut [P] {
        // SAFETY: `Out::take` has checked that the array has this many elements, contiguous, aligned and writable. No other
        // call holds them, and they are not freed meanwhile (see the head of this file).
        unsafe { slice::from_raw_parts_mut(self.data, self.length) }
    }
}

impl<P> Drop for Writing<'_, P> {
    fn drop(&mut self) {
        with_memory_in_use(|in_use| {
            if let Some(place) = in_use.iter().position(|(_, memory)| *memory == self.memory) {
                in_use.swap_remove(place);
            }
        });
    }
}

/// Makes numpy and this file do everything that they do once a process, before any other thread can be in the middle of it.
pub(super) fn look_up_once(py: Python<'_>) -> PyResult<()> {
    fn one<P: Element + Copy>(py: Python<'_>) -> PyResult<()> {
        let mut array = zeros::<P>(py, &[1])?;
        slice_of_new(&mut array);
        Logits::read(array.as_any()).map(|_| ()).or_else(|_| Ok(()))
    }
    one::<f32>(py)?;
    one::<f16>(py)?;
    one::<u16>(py)?;
    one::<i64>(py)?;
    one::<f64>(py)?;
    one::<u64>(py)?;
    AS_NATIVE.import(py, "toksample._arrays", "as_native")?;
    if with_memory_in_use(|_| ()).is_none() {
        return Err(PyRuntimeError::new_err("toksample was imported after a fork in the middle of a call"));
    }
    Ok(())
}
