//! What a folder says from look to look.
use podwall_engine::model::{PodUid, PolicyId, Tier};

use super::*;

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
    metadata: {name: web, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";

fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{nodeName: a}}\nstatus: {{phase: Running, podIP: {address}}}\n"
    )
}

struct Case {
    files: tempfile::TempDir,
    folder: Folder,
}

impl Case {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let folder = Folder::new(files.path().to_owned());
        Self { files, folder }
    }

    fn write(&self, name: &str, text: &str) {
        // Another inode each time, as editors do it: two writes may fall into one tick of the clock.
        let next = self.files.path().join(format!(".{name}"));
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.files.path().join(name)).unwrap();
    }

    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let look = self.folder.look(SystemTime::now() + 2 * SETTLE);
        let name = |input: &Input| match input {
            Input::Object { change: Change::Pod(pod), .. } => format!("+{} {}", pod.name, pod.addresses[0]),
            Input::Object { change: Change::PodGone(PodUid(uid)), .. } => format!("-{uid}"),
            Input::Object { change: Change::Policy(policy), .. } => format!("+{}", policy.id),
            Input::Object { change: Change::PolicyGone(id), .. } => format!("-{id}"),
            other => format!("{other:?}"),
        };
        (look.inputs.iter().map(name).collect(), look.problems)
    }
}

#[test]
fn objects_come_change_and_go_with_their_files() {
    let mut case = Case::new();
    case.write("a.yaml", &format!("{}---\n{POLICY}", pod("web", "10.0.0.1")));
    assert_eq!(case.look().0, ["+shop/web", "+web 10.0.0.1"]);
    assert_eq!(case.look().0, Vec::<String>::new());
    case.write("a.yaml", &pod("web", "10.0.0.2"));
    assert_eq!(case.look().0, ["-shop/web", "+web 10.0.0.2"]);
    std::fs::remove_file(case.files.path().join("a.yaml")).unwrap();
    assert_eq!(case.look().0, ["-shop/web"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_content_and_is_reported_with_its_line() {
    let mut case = Case::new();
    case.write("a.yaml", POLICY);
    case.look();
    case.write("a.yaml", "kind: NetworkPolicy\nmetadata:\n  name: web\n bad: [\n");
    let (inputs, problems) = case.look();
    assert_eq!(inputs, Vec::<String>::new());
    let start = format!("{}:", case.files.path().join("a.yaml").display());
    assert!(problems[0].starts_with(&start), "{problems:?}");
    assert!(problems[0].ends_with("its last good content is kept"), "{problems:?}");
    case.write("a.yaml", &pod("web", "10.0.0.1"));
    assert_eq!(case.look(), (vec!["-shop/web".to_owned(), "+web 10.0.0.1".to_owned()], vec![]));
}

#[test]
fn a_file_that_was_never_good_counts_as_far_as_its_documents_can_be_read() {
    let mut case = Case::new();
    case.write("a.yaml", &format!("{}---\nkind: [\n---\n{POLICY}", pod("web", "10.0.0.1")));
    let (inputs, problems) = case.look();
    assert_eq!(inputs, ["+shop/web", "+web 10.0.0.1"]);
    assert!(problems[0].contains("a.yaml:7: "), "{problems:?}");
}

#[test]
fn an_object_in_two_files_is_taken_from_the_first_by_name_until_that_goes() {
    let mut case = Case::new();
    case.write("b.yaml", &pod("web", "10.0.0.2"));
    assert_eq!(case.look().0, ["+web 10.0.0.2"]);
    case.write("a.yaml", &pod("web", "10.0.0.1"));
    assert_eq!(case.look().0, ["+web 10.0.0.1"]);
    std::fs::remove_file(case.files.path().join("a.yaml")).unwrap();
    assert_eq!(case.look().0, ["+web 10.0.0.2"]);
}

#[test]
fn a_file_in_the_making_is_left_alone_until_it_rests() {
    let mut case = Case::new();
    case.write("a.yaml", POLICY);
    let look = case.folder.look(SystemTime::now());
    assert!(look.unsettled && !look.complete && look.inputs.is_empty());
    assert_eq!(case.look().0, ["+shop/web"]);
}

#[test]
fn a_folder_that_vanishes_takes_nothing_with_it() {
    let mut case = Case::new();
    case.write("a.yaml", POLICY);
    case.look();
    std::fs::remove_dir_all(case.files.path()).unwrap();
    let look = case.folder.look(SystemTime::now());
    assert!(look.inputs.is_empty() && !look.complete);
    assert_eq!(look.problems.len(), 1);
    let id = PolicyId { tier: Tier::Namespace, namespace: "shop".into(), name: "web".into() };
    assert_eq!(
        case.folder.applied.values().filter_map(|e| ingest::removal(&e.change)).collect::<Vec<_>>(),
        [Change::PolicyGone(id)]
    );
}
