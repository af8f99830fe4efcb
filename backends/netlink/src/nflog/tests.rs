use super::*;

#[test]
fn numbers_left_out_are_losses_and_the_first_number_is_none() {
    let mut next = None;
    let sequences = [Some(7), Some(8), Some(11), None, Some(12)];
    assert_eq!(sequences.map(|sequence| gap(&mut next, sequence)), [0, 0, 2, 0, 0]);
}

#[test]
fn numbers_wrap_around_and_never_count_backwards() {
    let mut next = Some(u32::MAX);
    assert_eq!([Some(u32::MAX), Some(0), Some(2)].map(|sequence| gap(&mut next, sequence)), [0, 0, 1]);
    let mut next = Some(100);
    assert_eq!(gap(&mut next, Some(3)), 0, "the group was bound anew");
}
