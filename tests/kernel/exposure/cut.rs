//! Connections that stand when a door closes: cut on the node they came in at, for good, and nobody else's.
use podwall_lab::Flow;

use super::*;
use crate::rig::serving;

#[test]
fn connections_of_whom_a_door_no_longer_takes_are_cut_and_all_others_go_on() {
    let Some(mut rig) = ground() else { return };
    for mode in [Mode::Iptables, Mode::Nftables] {
        for outside in [OutsideTraffic::Cluster, OutsideTraffic::Local] {
            translate_for(&rig, mode, 30_080, outside);
            let doors = match outside {
                OutsideTraffic::Cluster => nodes(&rig),
                OutsideTraffic::Local => rig.lab.node("east").expect("it is there").addresses().to_vec(),
            };
            let through = |from: &str| -> Vec<Flow> {
                let pairs = doors.iter().flat_map(|to| DOORS.map(|(protocol, port)| (protocol, *to, port)));
                pairs.map(|at| flow(&rig, from, at)).collect()
            };
            let (mut cut, mut kept) = (through("elsewhere"), through("outside"));
            kept.extend(through("red/ant"));
            kept.extend(through("@west"));
            let direct = rig.addresses(&Actor("red/cat".to_owned()));
            kept.extend(direct.iter().map(|to| flow(&rig, "elsewhere", (Protocol::Tcp, *to, WEB))));
            let office = format!("{{services: {{names: [cat]}}, allow: [{{from: [{OFFICE}]}}]}}");
            rig.learn(&[exposure("office", &office)]);
            assert!(rig.commit_and_cut() >= cut.len());
            none_lives(&mut cut);
            all_live(&mut kept);
            cut.retain(|flow| flow.protocol() == Protocol::Tcp);
            for _ in 0..3 {
                rig.lab.pod("red/cat").expect("it is there").server().push();
                none_lives(&mut cut);
            }
            all_live(&mut kept);
            assert_eq!(rig.commit_and_cut(), 0);
            rig.delete("ServiceExposure", "red/office");
        }
    }
}

#[test]
fn open_connections_to_a_server_of_the_node_itself_go_on_once_it_speaks_first_and_new_ones_do_not_begin() {
    let Some(mut rig) = ground() else { return };
    let plan = serving(PodPlan::new("red/edge").on("west").host_network());
    let mut pod = rig.place_pod(plan, &[("kind", "edge")]);
    pod["spec"]["containers"] = json!([{"name": "main", "ports": [{"containerPort": WEB, "hostPort": WEB}]}]);
    let mut service = service(30_080);
    service["metadata"]["name"] = "edge".into();
    service["spec"] =
        json!({"selector": {"kind": "edge"}, "ports": [{"name": "edge", "port": 443, "targetPort": WEB}]});
    rig.apply(&[pod, service]);
    let west = rig.lab.node("west").expect("there").addresses().to_vec();
    let to = |from: &str| -> Vec<Flow> {
        west.iter().map(|to| flow(&rig, from, (Protocol::Tcp, *to, WEB))).collect()
    };
    let (mut cut, mut kept) = (to("elsewhere"), to("outside"));
    kept.extend(to("red/ant"));
    rig.learn(&[exposure(
        "edge",
        &format!("{{services: {{names: [edge]}}, allow: [{{from: [{OFFICE}]}}]}}"),
    )]);
    assert_ne!(rig.commit_and_cut(), 0);
    rig.lab.pod("red/edge").expect("it is there").server().push();
    // No translation is lost with the flow, and nothing tells the server's next packet from one of a flow of its own.
    all_live(&mut cut);
    all_live(&mut kept);
    shut(&rig, "elsewhere", &west, &[(Protocol::Tcp, WEB)]);
    open(&rig, "outside", &west, &[(Protocol::Tcp, WEB)]);
}
