//! What a folder says from look to look.
use podwall_engine::model::{PodUid, PolicyId, PolicyKind, Tier};

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

    /// Everything that follows from how the folder is now.
    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let (mut came, _) = self.look_once();
        let (later, problems) = self.look_in(2 * SETTLE + VANISH);
        came.extend(later);
        (came, problems)
    }

    fn look_once(&mut self) -> (Vec<String>, Vec<String>) {
        self.look_in(2 * SETTLE)
    }

    fn look_in(&mut self, later: Duration) -> (Vec<String>, Vec<String>) {
        let look = self.folder.look(SystemTime::now() + later);
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
    assert_eq!(case.look().0, ["+web 10.0.0.2", "-shop/web"]);
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
    assert_eq!(case.look(), (vec!["+web 10.0.0.1".to_owned(), "-shop/web".to_owned()], vec![]));
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
fn an_object_that_says_two_things_is_reported_with_both_places_until_it_says_one() {
    let mut case = Case::new();
    let problems = |case: &mut Case| {
        case.look();
        case.folder.look(SystemTime::now() + SETTLE).problems
    };
    case.write("a.yaml", &pod("web", "10.0.0.1"));
    case.write("b.yaml", &pod("web", "10.0.0.2"));
    let folder = case.files.path().display().to_string();
    let told = format!(
        "{folder}/b.yaml:1: Pod shop/web is already in {folder}/a.yaml:1, and says something else there; the \
         first counts"
    );
    assert_eq!(problems(&mut case), [told]);
    case.write("b.yaml", &pod("web", "10.0.0.1"));
    assert_eq!(problems(&mut case), [""; 0]);
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
    let id = PolicyId {
        tier: Tier::Namespace,
        namespace: "shop".into(),
        name: "web".into(),
        kind: PolicyKind::NetworkPolicy,
    };
    assert_eq!(
        case.folder.applied.values().filter_map(|e| ingest::removal(&e.change)).collect::<Vec<_>>(),
        [Change::PolicyGone(id)]
    );
}

#[test]
fn a_file_that_is_put_in_place_of_another_is_never_away_in_between() {
    let mut case = Case::new();
    case.write("a.yaml", POLICY);
    case.look();
    std::fs::remove_file(case.files.path().join("a.yaml")).unwrap();
    let look = case.folder.look(SystemTime::now() + 2 * SETTLE);
    assert!(look.unsettled && look.inputs.is_empty());
    case.write("a.yaml", &format!("# edited\n{POLICY}"));
    assert_eq!(case.look(), (vec![], vec![]));
}

#[test]
fn what_moves_to_a_file_that_is_still_being_written_stays_until_that_rests() {
    let mut case = Case::new();
    case.write("a.yaml", POLICY);
    case.look();
    std::fs::remove_file(case.files.path().join("a.yaml")).unwrap();
    case.look_once();
    std::thread::sleep(VANISH);
    case.write("b.yaml", POLICY);
    let look = case.folder.look(SystemTime::now());
    assert!(look.unsettled && look.inputs.is_empty());
    assert_eq!(case.look(), (vec![], vec![]));
}

#[test]
fn a_policy_that_is_renamed_comes_before_it_goes() {
    let mut case = Case::new();
    case.write("a.yaml", POLICY);
    case.look();
    case.write("a.yaml", &POLICY.replace("name: web", "name: all"));
    assert_eq!(case.look().0, ["+shop/all", "-shop/web"]);
}

#[test]
fn an_empty_folder_says_nothing_before_it_ever_said_something_and_is_believed_afterwards() {
    let mut case = Case::new();
    let look = case.folder.look(SystemTime::now());
    assert!(!look.complete);
    assert!(look.problems[0].ends_with(": no manifest in it"), "{:?}", look.problems);
    case.write("a.yaml", POLICY);
    assert_eq!(case.look(), (vec!["+shop/web".to_owned()], vec![]));
    std::fs::remove_file(case.files.path().join("a.yaml")).unwrap();
    assert_eq!(case.look().0, ["-shop/web"]);
}

#[test]
fn an_empty_folder_in_place_of_the_old_one_takes_nothing_with_it() {
    let mut case = Case::new();
    let (path, aside) = (case.files.path().join("mounted"), case.files.path().join("aside"));
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("a.yaml"), POLICY).unwrap();
    case.folder = Folder::new(path.clone());
    assert_eq!(case.look().0, ["+shop/web"]);
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (inputs, problems) = case.look();
    assert_eq!(inputs, Vec::<String>::new());
    assert!(problems[0].ends_with("(unmounted?); what it said before counts"), "{problems:?}");
    std::fs::write(path.join("b.yaml"), pod("web", "10.0.0.1")).unwrap();
    assert_eq!(case.look().0, ["+web 10.0.0.1", "-shop/web"]);
}

#[test]
fn a_link_that_leads_nowhere_keeps_what_it_led_to() {
    let mut case = Case::new();
    let data = case.files.path().join("..data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("a.yaml"), POLICY).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", case.files.path().join("a.yaml")).unwrap();
    assert_eq!(case.look(), (vec!["+shop/web".to_owned()], vec![]));
    std::fs::remove_file(data.join("a.yaml")).unwrap();
    let (inputs, problems) = case.look();
    assert_eq!(inputs, Vec::<String>::new());
    assert!(problems[0].ends_with("its last good content is kept"), "{problems:?}");
    std::fs::write(data.join("a.yaml"), POLICY).unwrap();
    assert_eq!(case.look(), (vec![], vec![]));
}

#[test]
fn an_object_that_loses_its_name_or_its_version_breaks_its_file() {
    for broken in [POLICY.replace("name: web, ", ""), POLICY.replace("k8s.io/v1", "k8s.io/v9")] {
        let mut case = Case::new();
        case.write("a.yaml", POLICY);
        case.look();
        case.write("a.yaml", &broken);
        let (inputs, problems) = case.look();
        assert_eq!(inputs, Vec::<String>::new(), "{broken}");
        assert!(problems[0].ends_with("its last good content is kept"), "{problems:?}");
    }
}
