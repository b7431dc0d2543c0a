//! The assembler where a conditional jump stops reaching.

use super::super::bpf::{Assembler, Jump, Place};
use super::super::{ARCH, NR};
use super::{Call, check, run};

/// Writes `count` instructions that nobody jumps to.
fn pad(code: &mut Assembler, count: usize) {
    let mut place = code.ret(9);
    for _ in 0..count {
        place = code.load(NR, place);
    }
}

#[test]
fn a_jump_over_any_distance_comes_to_its_target() {
    type Target = fn(&mut Assembler, u32) -> Place;
    let returns: Target = |code, value| code.ret(value);
    let goes_on: Target = |code, value| {
        let end = code.ret(value);
        code.load(ARCH, end)
    };
    let lengths = || [0, 1].into_iter().chain(245..260);
    for target in [returns, goes_on] {
        for between in lengths() {
            for after in lengths() {
                let mut code = Assembler::default();
                let no = target(&mut code, 1);
                pad(&mut code, between);
                let yes = target(&mut code, 2);
                pad(&mut code, after);
                let swapped = code.jump(Jump::Eq, 8, no, yes);
                let test = code.jump(Jump::Gt, 6, yes, no);
                let test = code.jump(Jump::Eq, 7, test, swapped);
                code.load(NR, test);
                let program = code.finish();
                check(&program);
                for (nr, want) in [(7, 2), (8, 1), (9, 2)] {
                    let (arch, args) = (0, [0; 6]);
                    let (got, _) = run(&program, &Call { arch, nr, args }, false);
                    assert_eq!(got, want, "{between} {after} {nr}");
                }
            }
        }
    }
}
