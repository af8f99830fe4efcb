//! Up to which version the kernel holds what people wrote, as the node's report tells it.
use super::*;

async fn reached(case: &Case, number: u32) {
    let version = ResourceVersion::parse(&number.to_string()).unwrap();
    case.send(Input::Reached { kind: ReportedKind::Ban, version, objects: 1, news: News::Spec }).await;
}

/// The mark on the sheet, if it says anything.
fn mark(case: &Case) -> Option<String> {
    let marks = case.sheet.marks()?;
    Some(marks.get(&ReportedKind::Ban).map_or_else(String::new, |reached| reached.version.to_string()))
}

#[tokio::test(start_paused = true)]
async fn a_version_is_told_as_standing_once_the_commit_after_it_came_back_well() {
    let case = following().await;
    case.change(pod(1)).await;
    reached(&case, 10).await;
    case.turn().await;
    assert!(case.work().is_some());
    assert_eq!(mark(&case), Some(String::new()), "on its way");
    case.change(pod(2)).await;
    reached(&case, 20).await;
    case.outcomes.send(Outcome::Done).unwrap();
    case.turn().await;
    assert_eq!(mark(&case).as_deref(), Some("10"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(case.work().is_some());
    case.outcomes.send(Outcome::Lost).unwrap();
    case.outcomes.send(Outcome::Done).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mark(&case).as_deref(), Some("10"), "it did not go through");
    assert!(matches!(case.work(), Some(Work::Wanted(_))));
    case.outcomes.send(Outcome::Done).unwrap();
    case.turn().await;
    assert_eq!(mark(&case).as_deref(), Some("20"));
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_did_not_take_is_not_told_as_standing_while_the_next_try_is_waited_for() {
    let case = following().await;
    case.change(pod(1)).await;
    reached(&case, 10).await;
    case.turn().await;
    assert!(case.work().is_some());
    case.outcomes.send(Outcome::Undone).unwrap();
    reached(&case, 20).await;
    tokio::time::sleep(TICK * 2).await;
    assert_eq!(mark(&case), Some(String::new()));
    case.outcomes.send(Outcome::Lost).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(case.work(), Some(Work::Wanted(_))));
    case.outcomes.send(Outcome::Done).unwrap();
    case.turn().await;
    assert_eq!(mark(&case).as_deref(), Some("20"));
}

#[tokio::test(start_paused = true)]
async fn what_concerns_this_node_in_nothing_stands_at_once_and_after_a_teardown_nothing_does() {
    let case = following().await;
    reached(&case, 30).await;
    case.turn().await;
    assert!(case.work().is_none());
    assert_eq!(mark(&case).as_deref(), Some("30"));
    case.outcomes.send(Outcome::TornDown).unwrap();
    case.turn().await;
    assert_eq!(mark(&case), Some(String::new()));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_finds_nothing_says_so_and_one_that_finds_rules_waits_with_its_report() {
    for (standing, told) in [(Standing::Nothing, Some(String::new())), (Standing::Strict, None)] {
        let case = start([Feed::Pods, Feed::Host]);
        reached(&case, 10).await;
        case.outcomes.send(Outcome::Standing(standing)).unwrap();
        case.turn().await;
        assert_eq!(mark(&case), told);
    }
}
