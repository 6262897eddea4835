//! Samplers of other Rust crates beside toksample, on the rows of a .npy file of float32 (B, V).
//!
//! RUSTFLAGS="-C target-cpu=native" cargo run --release -- rows.npy [ROUNDS]
//!
//! In each round every sampler draws once from the same row, in an order that rotates, each once untimed before it is timed.
//! A figure is the median over the rows of the row's median; the ratios are to a loop that takes the maximum of the row, and
//! to toksample. The first draws are checked: each token must be among those that toksample's filters keep.

use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use llm_samplers::prelude::{self as llm, Sampler as _};
use rand::SeedableRng;
use rand::rngs::StdRng;
use token_sampling as ts;
use toksample::context::Context;
use toksample::isa::Isa;
use toksample::params::Params;
use toksample::recipe::{self, Scratch};
use toksample::rng::{Words, words};

type Draw = Box<dyn FnMut() -> usize>;

/// A call: its title and parameters.
struct Call {
    title: &'static str,
    params: Params,
}

fn calls() -> Vec<Call> {
    let all = Params::default();
    vec![
        Call { title: "argmax", params: Params { temperature: 0.0, ..all } },
        Call {
            title: "temperature 0.7, top_k 50, top_p 0.9",
            params: Params { temperature: 0.7, top_k: 50, top_p: 0.9, ..all },
        },
        Call { title: "temperature 0.7, min_p 0.05", params: Params { temperature: 0.7, min_p: 0.05, ..all } },
        Call { title: "temperature 0.7, top_p 0.9", params: Params { temperature: 0.7, top_p: 0.9, ..all } },
        Call { title: "temperature 0.7", params: Params { temperature: 0.7, ..all } },
        Call { title: "temperature 1.5, top_p 0.9", params: Params { temperature: 1.5, top_p: 0.9, ..all } },
    ]
}

/// The maximum, in lanes that a compiler can keep in vector registers.
fn max_loop(row: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<64>();
    let mut lanes = [f32::NEG_INFINITY; 64];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

fn ours(row: &[f32], params: Params) -> Draw {
    let (row, isa, mut scratch, mut position) = (row.to_vec(), Isa::current().unwrap(), Scratch::default(), 0);
    Box::new(move || {
        position += 1;
        recipe::sample(isa, &row, &params, &Context::default(), words(1, 0, position), &mut scratch).unwrap()
    })
}

/// In candle, top_p after top_k is a share of the whole probability, not of what top_k has kept.
fn candle(row: &[f32], params: Params) -> Option<Draw> {
    let Params { temperature, top_k, top_p: p, min_p, .. } = params;
    let k = top_k as usize;
    let sampling = match (temperature > 0.0, k > 0, p < 1.0) {
        _ if min_p > 0.0 => return None,
        (false, _, _) => Sampling::ArgMax,
        (_, true, true) => Sampling::TopKThenTopP { k, p, temperature },
        (_, true, false) => Sampling::TopK { k, temperature },
        (_, false, true) => Sampling::TopP { p, temperature },
        (_, false, false) => Sampling::All { temperature },
    };
    let tensor = Tensor::new(row, &Device::Cpu).unwrap();
    let mut processor = LogitsProcessor::from_sampling(1, sampling);
    Some(Box::new(move || processor.sample(&tensor).unwrap() as usize))
}

/// The list of candidates is made for each draw, as its samplers use it up.
fn llm_samplers(row: &[f32], params: Params) -> Draw {
    let mut chain = llm::SamplerChain::new();
    if params.temperature == 0.0 {
        chain.push_sampler(llm::SampleGreedy::new());
    } else {
        chain.push_sampler(llm::SampleTemperature::new(params.temperature as f32));
        if params.top_k > 0 {
            chain.push_sampler(llm::SampleTopK::new(params.top_k as usize, 1));
        }
        if params.top_p < 1.0 {
            chain.push_sampler(llm::SampleTopP::new(params.top_p as f32, 1));
        }
        if params.min_p > 0.0 {
            chain.push_sampler(llm::SampleMinP::new(params.min_p as f32, 1));
        }
        chain.push_sampler(llm::SampleRandDistrib::new());
    }
    let row = row.to_vec();
    let mut resources = llm::SimpleSamplerResources::new(Some(Box::new(StdRng::seed_from_u64(1))), None);
    Box::new(move || {
        let mut logits = llm::Logits::try_from_iter(row.iter().copied()).unwrap();
        chain.sample_token(&mut resources, &mut logits).unwrap().unwrap() as usize
    })
}

fn token_sampling(row: &[f32], params: Params) -> Draw {
    let mut chain = ts::SamplerChain::new();
    if params.temperature == 0.0 {
        chain = chain.push(ts::Greedy);
    } else {
        chain = chain.push(ts::Temperature { t: params.temperature as f32 });
        if params.top_k > 0 {
            chain = chain.push(ts::TopK { k: params.top_k as i32 });
        }
        if params.top_p < 1.0 {
            chain = chain.push(ts::TopP { p: params.top_p as f32, min_keep: 1 });
        }
        if params.min_p > 0.0 {
            chain = chain.push(ts::MinP { p: params.min_p as f32, min_keep: 1 });
        }
        chain = chain.push(ts::Dist);
    }
    let (mut row, mut rng) = (row.to_vec(), ts::SplitMix64::new(1));
    Box::new(move || chain.sample(&mut row, &[], &mut rng).unwrap() as usize)
}

/// Panics unless the token is legal: kept by a top_p wider by 1e-4, or tied with a token that is.
fn check(name: &str, row: &[f32], params: Params, token: usize) {
    let mut wider = Params { top_p: (params.top_p + 1e-4).min(1.0), min_p: params.min_p * 0.9999, ..params };
    if name == "candle" && params.top_k > 0 {
        wider.top_p = 1.0; // candle's top_p is a share of something else: see above
    }
    let (ids, _) =
        recipe::candidates(Isa::PORTABLE, row, &wider, &Context::default(), Words::default(), &mut Scratch::default()).unwrap();
    let least = row[*ids.last().unwrap() as usize];
    assert!(row[token] >= least, "{name}: token {token} of {params:?} is not legal");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Reads a .npy file of little-endian float32 in C order, of one or two axes.
fn read_npy(path: &str) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(bytes.starts_with(b"\x93NUMPY"), "{path}: not a .npy file");
    let (start, size) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    let header = String::from_utf8_lossy(&bytes[start..start + size]).into_owned();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{path}: must be float32: {header}");
    let shape = header.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a shape").0;
    let tokens: usize = shape.split(',').filter_map(|n| n.trim().parse().ok()).last().expect("a shape");
    let numbers: Vec<f32> = bytes[start + size..].as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    numbers.chunks_exact(tokens).map(<[f32]>::to_vec).collect()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: rust-peers rows.npy [ROUNDS]");
    let rounds: usize = args.next().map_or(9, |text| text.parse().expect("ROUNDS is a number"));
    let rows = read_npy(&path);
    println!("{} rows of {} logits, one thread, {}", rows.len(), rows[0].len(), Isa::current().unwrap().name());
    for Call { title, params } in calls() {
        let mut figures: Vec<(&str, Vec<f64>)> = Vec::new();
        for row in &rows {
            let copy = row.clone();
            let floor: Draw = Box::new(move || max_loop(black_box(&copy)) as usize);
            let mut draws: Vec<(&str, Draw)> = vec![("max loop", floor), ("toksample", ours(row, params))];
            draws.extend(candle(row, params).map(|draw| ("candle", draw)));
            draws.push(("llm-samplers", llm_samplers(row, params)));
            draws.push(("token-sampling", token_sampling(row, params)));
            for (name, draw) in draws.iter_mut().skip(1) {
                check(name, row, params, draw());
            }
            let mut times: Vec<Vec<f64>> = draws.iter().map(|_| Vec::new()).collect();
            for round in 0..rounds {
                for place in 0..draws.len() {
                    let place = (place + round) % draws.len();
                    let (_, draw) = &mut draws[place];
                    black_box(draw());
                    let start = Instant::now();
                    black_box(draw());
                    times[place].push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
            for ((name, _), mut times) in draws.iter().zip(times) {
                let figure = median(&mut times);
                match figures.iter_mut().find(|(other, _)| other == name) {
                    Some((_, each)) => each.push(figure),
                    None => figures.push((name, vec![figure])),
                }
            }
        }
        println!("\n{title:32}{:>14}{:>14}{:>14}", "microseconds", "x max loop", "x toksample");
        let (floor, own) = (figures[0].1.clone(), figures[1].1.clone());
        let ratio = |each: &[f64], base: &[f64]| {
            median(&mut each.iter().zip(base).map(|(one, other)| one / other).collect::<Vec<_>>())
        };
        for (name, mut each) in figures {
            let (to_floor, to_own) = (ratio(&each, &floor), ratio(&each, &own));
            println!("  {name:30}{:>14.1}{to_floor:>14.2}{to_own:>14.2}", median(&mut each));
        }
    }
}
