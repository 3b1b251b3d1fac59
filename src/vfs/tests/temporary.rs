//! Temporary files in memory and on disk.

use super::super::temp::{BUDGET, Budget, TempFile};
use crate::base::Prng;

#[test]
fn random_changes_equal_a_vector_in_memory_and_on_disk() {
    static SMALL: Budget = Budget::new(40_000);
    static LARGE: Budget = Budget::new(1 << 30);
    for (budget, spills) in [(&SMALL, true), (&LARGE, false)] {
        let mut prng = Prng::new(5);
        let mut below = |bound: u64| usize::try_from(prng.below(bound)).unwrap();
        let (mut file, mut model) = (TempFile::new(budget), Vec::new());
        for step in 0..2000u32 {
            let (at, len) = (below(60_000), below(20_000));
            match below(8) {
                0 => {
                    file.truncate(at as u64).unwrap();
                    model.resize(at, 0);
                }
                1..4 => {
                    let bytes = vec![step.to_le_bytes()[0]; len];
                    file.write(at as u64, &bytes).unwrap();
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&bytes);
                }
                _ => {
                    let mut out = vec![0xee; len];
                    let complete = file.read(at as u64, &mut out).unwrap();
                    let inside = model.get(at..).unwrap_or_default();
                    let inside = &inside[..inside.len().min(len)];
                    assert_eq!(complete, inside.len() == len, "step {step}");
                    assert_eq!(&out[..inside.len()], inside, "step {step}");
                    assert!(out[inside.len()..].iter().all(|byte| *byte == 0), "step {step}");
                }
            }
            assert_eq!(file.size(), model.len() as u64);
        }
        assert_eq!(file.is_on_disk(), spills);
        drop(file);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn files_share_their_budget_and_give_it_back() {
    static SHARED: Budget = Budget::new(20_000);
    let (mut one, mut two) = (TempFile::new(&SHARED), TempFile::new(&SHARED));
    one.write(0, &[1; 12_000]).unwrap();
    two.write(0, &[2; 12_000]).unwrap();
    assert!(!one.is_on_disk() && two.is_on_disk());
    one.truncate(0).unwrap();
    assert_eq!(SHARED.used(), 0);
    let mut third = TempFile::new(&SHARED);
    third.write(0, &[3; 12_000]).unwrap();
    assert!(!third.is_on_disk());
    let mut out = [0; 2];
    assert_eq!(two.read(11_999, &mut out), Ok(false));
    assert_eq!(out, [2, 0]);
}

#[test]
fn an_offset_that_cannot_be_is_an_error() {
    static ANY: Budget = Budget::new(20_000);
    let mut file = TempFile::new(&ANY);
    assert!(file.write(u64::MAX - 2, &[1; 12]).is_err());
    assert_eq!(file.read(u64::MAX, &mut [1; 3]), Ok(false));
}

#[test]
fn the_temporary_files_of_the_process_together_stay_within_64_mib() {
    let mut file = TempFile::new(&BUDGET);
    file.write(64 << 20, &[1]).unwrap();
    assert!(file.is_on_disk());
}
