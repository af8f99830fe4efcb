//! What libnftnl loads, podwall reads back as what it was: two encoders that share no code agree with one decoder.
use podwall_lab::Netns;
use podwall_nftables::{Guard, Nftables, Options};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Backend as _, Ruleset};
use podwall_shapes::{Deed, Half, Script, Shape, Turn};
use podwall_yardsticks::{Failed, Yardstick};

fn carry_out(yardstick: &mut Yardstick, turn: &Turn) -> Result<(), Failed> {
    for stage in stages(&turn.before, &turn.delta) {
        yardstick.commit(&Yardstick::encode(stage.transaction.ops()))?;
    }
    Ok(())
}

fn standing() -> Result<Ruleset, Failed> {
    let mut kernel = Nftables::open(Options { guard: Guard::Watched })?;
    let observed = kernel.observe()?;
    assert_eq!(observed.alien, Vec::<String>::new());
    Ok(observed.or_empty())
}

#[test]
fn a_table_and_every_deed_read_back_as_they_were_meant() {
    let netns = match Netns::new() {
        Ok(netns) => netns,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("skipped: {error}");
            return;
        }
    };
    let mut engine = Shape::HUNDRED.engine().unwrap();
    netns
        .run(|| {
            let mut yardstick = Yardstick::open().unwrap();
            let load = Turn::load(engine.ruleset());
            carry_out(&mut yardstick, &load).unwrap();
            assert_eq!(standing().unwrap(), load.after);
            for deed in Deed::ALL {
                let script = Script::of(deed, &Shape::HUNDRED, &mut engine).unwrap();
                for half in [Half::There, Half::Back] {
                    carry_out(&mut yardstick, script.turn(half)).unwrap();
                    assert_eq!(standing().unwrap(), script.turn(half).after, "{deed:?} {half:?}");
                }
            }
            carry_out(&mut yardstick, &load.undone()).unwrap();
            assert_eq!(standing().unwrap(), Ruleset::default());
        })
        .unwrap();
}
