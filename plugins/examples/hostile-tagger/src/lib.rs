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
        _ => {}
    }
    Ok(answer)
}
