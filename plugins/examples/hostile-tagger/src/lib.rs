//! A tagger that misbehaves as each row asks: the limits are tested with it.

use std::hint::black_box;

use heyuan_tagger::{Features, Moment, Tags, log, tagger};

#[derive(Features)]
pub struct Wish<'a> {
    #[reads("profile.behaviour")]
    behaviour: Option<f64>,
    #[reads("profile.nickname")]
    nickname: Option<&'a str>,
}

#[derive(Tags)]
pub struct Answer {
    #[tag("hostile_text")]
    text: Option<String>,
    #[tag("hostile_number")]
    number: Option<f64>,
    #[tag("hostile_flag")]
    flag: Option<bool>,
}

#[expect(unconditional_recursion, reason = "deep recursion is the point")]
fn descend(depth: u64) -> u64 {
    descend(black_box(depth + 1)) + black_box(depth)
}

fn bomb() -> usize {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![1; 1 << 20]));
        if held.len() > 1 << 14 {
            return held.len();
        }
    }
}

/// Blocks of many sizes, grown, shrunk and dropped in no order; each must keep its own bytes, and new ones must be zero. No
/// harm, but where else would the allocator of the SDK be put to the test?
fn shuffle_memory() -> u32 {
    let mut state = 1_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let mut held: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut checked = 0;
    for round in 0..4_000_usize {
        let mark = round as u8;
        match next(4) {
            0 | 1 => {
                let mut block = black_box(vec![0_u8; next(if round % 16 == 0 { 20_000 } else { 300 })]);
                assert!(block.iter().all(|&byte| byte == 0), "a new block of {} bytes is not zero", block.len());
                block.fill(mark);
                held.push((mark, block));
            }
            2 if !held.is_empty() => {
                let place = next(held.len());
                let (mark, block) = &mut held[place];
                let size = next(2 * block.len() + 64);
                block.resize(size, *mark);
                block.shrink_to_fit();
            }
            _ if !held.is_empty() => {
                let (mark, block) = held.swap_remove(next(held.len()));
                assert!(block.iter().all(|&byte| byte == mark), "a block of {} bytes was written by another", block.len());
                checked += 1;
            }
            _ => {}
        }
    }
    checked + held.iter().filter(|(mark, block)| block.iter().all(|byte| byte == mark)).count() as u32
}

/// Does harm on request.
#[tagger(name = "hostile-tagger")]
pub fn tag(wish: &Wish, moment: Moment) -> Result<Answer, String> {
    let mut answer = Answer { text: wish.nickname.map(str::to_owned), number: wish.behaviour, flag: wish.behaviour.map(|b| b < 1.0) };
    match wish.behaviour.unwrap_or(0.0) as u32 {
        1 => loop {
            black_box(moment);
        },
        2 => answer.number = Some(bomb() as f64),
        3 => answer.text = Some("x".repeat(8 << 20)),
        4 => answer.number = Some(descend(0) as f64),
        5 => panic!("the row asked for a panic"),
        6 => return Err("the row asked for an error".to_owned()),
        7 => answer.number = Some(f64::NAN),
        8 => (0..100_000).for_each(|_| log("a line that nobody needs, many times over")),
        9 => {
            // Moves memory without a branch that would pay for it, for as long as it is let.
            let mut block = vec![0_u8; 4 << 20];
            for fill in 0..u32::MAX {
                block.fill(fill as u8);
                black_box(&block);
            }
        }
        10 => answer.number = Some(f64::from(shuffle_memory())),
        // Some four units of fuel a round: one row's share twice over, which a call with fewer rows makes up for.
        11 => (0..1_000_u32).for_each(|round| {
            black_box(round);
        }),
        12 => answer.text = Some("no database keeps \0".to_owned()),
        _ => {}
    }
    Ok(answer)
}
