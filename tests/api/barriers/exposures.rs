//! The doors of Services, closed from outside on every node; translated as kube-proxy does.
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use podwall_lab::{Outcome, Probe, Protocol};
use podwall_testkit::dnat::{Outside, Proxy, ServicePort};

use super::{Ground, PATIENCE, WEB, condition};
use crate::site::Failure;

const DOOR: u16 = 30_080;

/// The Service in front of shop/server, which lives on node-a.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec:
  type: NodePort
  selector: {app: server}
  ports: [{name: web, port: 80, targetPort: 80, nodePort: 30080}]
";

/// The same as kube-proxy has it on every node.
fn translate(ground: &Ground) -> Result<(), Failure> {
    let lab = &ground.site.lab;
    let endpoints = lab.pod("shop/server")?.addresses();
    let port = |endpoint: &IpAddr| ServicePort {
        address: if endpoint.is_ipv4() {
            IpAddr::from([10, 96, 0, 9])
        } else {
            IpAddr::from([0xfd96, 0, 0, 0, 0, 0, 0, 9])
        },
        protocol: Protocol::Tcp,
        port: WEB,
        node_port: Some(DOOR),
        endpoints: vec![SocketAddr::new(*endpoint, WEB)],
        outside: Outside::Cluster,
    };
    let services: Vec<ServicePort> = endpoints.iter().map(port).collect();
    let wide = |range: &IpNetwork| {
        let wide = IpNetwork::new(range.ip(), if range.is_ipv4() { 16 } else { 48 })?;
        Ok::<_, Failure>(format!("{}/{}", wide.network(), wide.prefix()))
    };
    for node in lab.nodes() {
        let pod_ranges = node.pod_ranges().iter().map(wide).collect::<Result<_, _>>()?;
        Proxy { node_addresses: node.addresses().to_vec(), pod_ranges }.load(node.netns(), &services);
    }
    Ok(())
}

#[test]
fn an_exposure_closes_a_node_port_on_every_node_but_for_those_it_names() -> Result<(), Failure> {
    let Some(ground) = Ground::start()? else { return Ok(()) };
    translate(&ground)?;
    ground.site.apply(SERVICE)?;
    let lab = &ground.site.lab;
    let doors = [lab.node("node-a")?.addresses(), lab.node("node-b")?.addresses()].concat();
    ground.becomes("outside", &doors, DOOR, Outcome::Open)?;
    let office: Vec<String> = ground
        .host("elsewhere")?
        .iter()
        .map(|address| format!("{{cidr: \"{}\"}}", IpNetwork::from(*address)))
        .collect();
    let exposure = format!(
        "apiVersion: podwall.dev/v1alpha1\nkind: ServiceExposure\nmetadata: {{namespace: shop, name: web}}\n\
         spec: {{services: {{names: [web]}}, allow: [{{from: [{}]}}]}}\n",
        office.join(", ")
    );
    ground.site.apply(&exposure)?;
    ground.only_elsewhere(&doors, DOOR)?;
    ground.waits("svcx/web -n shop")?;
    ground.says("svcx/web -n shop", &condition("Enforced"), "True OnEveryNode enforced on 2/2 nodes")?;
    // It is about the doors: what is inside the cluster, and the pods' own addresses, are other people's matter.
    ground.becomes("outside", lab.pod("shop/server")?.addresses(), WEB, Outcome::Open)?;
    for door in &doors {
        let answer = Probe::tcp(*door, DOOR).timeout(PATIENCE).from(lab.pod("shop/other")?.netns())?;
        assert_eq!(answer.outcome, Outcome::Open, "{door}");
    }
    ground.site.delete(&exposure)?;
    ground.becomes("outside", &doors, DOOR, Outcome::Open)
}
