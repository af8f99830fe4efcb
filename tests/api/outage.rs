//! Enforcement outlives the API server, its history, and the agent.
use podwall_lab::Outcome;

use crate::site::{Failure, ONLY_FRIENDS, Site};

#[test]
fn rules_stand_while_the_api_server_is_down_and_follow_again_when_it_is_back() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.api.stop_apiserver();
    std::thread::sleep(std::time::Duration::from_secs(3));
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.runtime.block_on(site.api.start_apiserver_again())?;
    site.delete(ONLY_FRIENDS)?;
    // The watch backs off while the server is away; it may need a while to notice that it is back.
    std::thread::sleep(std::time::Duration::from_secs(2));
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    Ok(())
}

#[test]
fn a_watch_whose_history_is_gone_lists_again_and_misses_nothing() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.runtime.block_on(site.api.expire_history())?;
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_leaves_its_rules_and_its_successor_catches_up() -> Result<(), Failure> {
    let Some(mut site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.kill_agent("node-a");
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.delete(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.start_agent("node-a")?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    Ok(())
}

#[test]
fn a_server_that_hangs_changes_nothing_and_is_followed_again_once_it_moves() -> Result<(), Failure> {
    let Some(site) = Site::shop()? else { return Ok(()) };
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.api.freeze_apiserver()?;
    std::thread::sleep(std::time::Duration::from_secs(4));
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    site.api.thaw_apiserver()?;
    site.delete(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    Ok(())
}
