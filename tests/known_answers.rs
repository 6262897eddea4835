//! The answers that may not change, checked on each instruction set of the CPU. `known_answers.txt` has them, and says how its
//! rows are made.

use half::{bf16, f16};
use toksample::context::Context;
use toksample::isa::Isa;
use toksample::logit::Logit;
use toksample::params::{Params, Set, TABLE};
use toksample::recipe::{self, Scratch};
use toksample::rng::{Words, words};

const FILE: &str = include_str!("known_answers.txt");

/// What the file says of a row with one set of parameters.
struct Case {
    params: Params,
    count: usize,
    total: u64,
    digest: u64,
    first: Vec<(i64, u64)>,
    seed: u64,
    stream: u64,
    position: u64,
    tokens: Vec<usize>,
}

impl Case {
    /// Makes a case of the first of its lines.
    fn new(params: Params, count: &str, total: &str, digest: &str) -> Case {
        Case {
            params,
            count: parse(count),
            total: parse(total),
            digest: hexadecimal(digest),
            first: Vec::new(),
            seed: 0,
            stream: 0,
            position: 0,
            tokens: Vec::new(),
        }
    }
}

/// Returns the parameters of a line `with`.
fn read_named(named: &str) -> Params {
    let mut params = Params::default();
    for pair in named.split(',') {
        let (name, value) =
            pair.split_once('=').unwrap_or_else(|| panic!("known_answers.txt: {pair:?} is not a parameter"));
        match (name, TABLE.iter().find(|parameter| parameter.name == name).map(|parameter| &parameter.set)) {
            (_, Some(Set::Real(_, set))) => set(&mut params, parse(value)),
            (_, Some(Set::Count(_, set))) => set(&mut params, parse(value)),
            ("mirostat_mu", _) => params.mirostat_mu = Some(parse(value)),
            ("adaptive_average", _) => params.adaptive_average = Some(parse(value)),
            _ => panic!("known_answers.txt: unknown parameter {name:?}"),
        }
    }
    params
}

fn parse<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("known_answers.txt: {word:?} is not a number"))
}

fn hexadecimal(word: &str) -> u64 {
    u64::from_str_radix(word, 16).unwrap_or_else(|_| panic!("known_answers.txt: {word:?} is not hexadecimal"))
}

/// The rows of the file as float32, each with the type that its logits shall have and its cases.
fn read() -> Vec<(String, Vec<f32>, Vec<Case>)> {
    let mut rows: Vec<(String, Vec<f32>, Vec<Case>)> = Vec::new();
    for line in FILE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["row", _, dtype, size, seed, span, offset, shift, ban] => {
                let row = make_row(parse(size), parse(seed), parse(span), parse(offset), parse(shift), parse(ban));
                rows.push((dtype.to_string(), row, Vec::new()));
            }
            ["keep", temperature, top_k, top_p, min_p, count, total, digest] => {
                let params = Params {
                    temperature: parse(temperature),
                    top_k: parse(top_k),
                    top_p: parse(top_p),
                    min_p: parse(min_p),
                    ..Params::default()
                };
                last(&mut rows).push(Case::new(params, count, total, digest));
            }
            ["with", named, count, total, digest] => {
                last(&mut rows).push(Case::new(read_named(named), count, total, digest));
            }
            ["first", ref pairs @ ..] => {
                let pair = |word: &&str| word.split_once(':').map(|(id, mass)| (parse(id), parse(mass)));
                last_case(&mut rows).first = pairs.iter().filter_map(pair).collect();
            }
            ["draw", seed, stream, position, ref tokens @ ..] => {
                let case = last_case(&mut rows);
                (case.seed, case.stream, case.position) = (parse(seed), parse(stream), parse(position));
                case.tokens = tokens.iter().map(|token| parse(token)).collect();
            }
            _ => panic!("known_answers.txt: unknown line {line:?}"),
        }
    }
    rows
}

fn last(rows: &mut [(String, Vec<f32>, Vec<Case>)]) -> &mut Vec<Case> {
    &mut rows.last_mut().expect("a row comes before its cases").2
}

fn last_case(rows: &mut [(String, Vec<f32>, Vec<Case>)]) -> &mut Case {
    last(rows).last_mut().expect("a line `keep` or `with` comes before `first` and `draw`")
}

fn make_row(size: u64, seed: u64, span: u64, offset: i64, shift: i64, ban: u64) -> Vec<f32> {
    let unit = f64::from_bits(((1023 - shift) as u64) << 52); // 2**-shift
    let logit = |id: u64| {
        let mut z = seed.wrapping_add((id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        if (z >> 7) % 16 < ban {
            return f32::NEG_INFINITY;
        }
        let sum: u64 = [0, 16, 32, 48].map(|part| ((z >> part & 0xffff) * span) >> 16).iter().sum();
        ((sum as i64 - offset) as f64 * unit) as f32
    };
    (0..size).map(logit).collect()
}

fn check<T: Logit>(isa: Isa, row: &[T], case: &Case) {
    let (params, mut scratch) = (&case.params, Scratch::default());
    let of = format!("{}, {} tokens, {params:?}", isa.name(), row.len());

    let (ids, probs) =
        recipe::candidates(isa, row, params, &Context::default(), Words::default(), &mut scratch).expect(&of);
    // A probability is a mass divided by their sum: with the sum that the file gives, it tells the mass.
    let total = case.total as f64;
    let masses: Vec<u64> = probs.iter().map(|p| (p * total).round_ties_even() as u64).collect();
    assert_eq!((ids.len(), masses.iter().sum()), (case.count, case.total), "{of}");
    assert!(probs.iter().zip(&masses).all(|(&p, &mass)| p == mass as f64 / total), "{of}: probabilities");
    let pairs: Vec<(i64, u64)> = ids.iter().copied().zip(masses).collect();
    assert_eq!(pairs[..case.first.len()], case.first, "{of}");
    let digest = pairs.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, &(id, mass)| {
        [id as u64, mass].iter().fold(h, |h, word| (h ^ word).wrapping_mul(0x0100_0000_01b3))
    });
    assert_eq!(digest, case.digest, "{of}");

    let mut masked = row.to_vec();
    recipe::mask_logits(isa, row, params, &Context::default(), Words::default(), &mut masked, &mut scratch).expect(&of);
    let mut kept: Vec<i64> = ids;
    kept.sort_unstable();
    let finite = (0..).zip(&masked).filter(|(_, x)| x.to_f32() > f32::NEG_INFINITY).map(|(id, _)| id);
    assert!(finite.eq(kept), "{of}: mask_logits");

    for (position, &token) in (case.position..=u64::MAX).zip(&case.tokens) {
        let words = words(case.seed, case.stream, position);
        assert_eq!(
            recipe::sample(isa, row, params, &Context::default(), words, &mut scratch),
            Ok(token),
            "{of}, position {position}"
        );
    }
}

fn check_row<T: Logit>(wide: &[f32], cases: &[Case], narrow: impl Fn(f32) -> T) {
    let row: Vec<T> = wide.iter().map(|&x| narrow(x)).collect();
    assert!(row.iter().map(|x| x.to_f32()).eq(wide.iter().copied()), "the type does not hold the row exactly");
    for isa in Isa::available() {
        for case in cases {
            check(isa, &row, case);
        }
    }
}

#[test]
fn known_answers() {
    let rows = read();
    let cases: usize = rows.iter().map(|(_, _, cases)| cases.len()).sum();
    let draws: usize = rows.iter().flat_map(|(_, _, cases)| cases).map(|case| case.tokens.len()).sum();
    assert!(cases >= 500 && draws >= 6 * cases, "known_answers.txt was cut short: {cases} cases, {draws} draws");
    for (dtype, row, cases) in &rows {
        match dtype.as_str() {
            "float32" => check_row(row, cases, |x| x),
            "float16" => check_row(row, cases, f16::from_f32),
            "bfloat16" => check_row(row, cases, bf16::from_f32),
            other => panic!("known_answers.txt: unknown type {other}"),
        }
    }
    let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    println!("{} rows, {cases} cases, {draws} draws, on {}", rows.len(), isas.join(", "));
}
