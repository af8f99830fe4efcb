//! What the planner tells of what stands, for this node's report.
use super::super::node_report::Sheet;
use super::super::node_report::marks::{ByKind, Marks};
use super::super::reports::Reports;
use super::super::work::Standing;
use super::Phase;

/// The marks on their way to the sheet.
#[derive(Debug)]
pub(super) struct Telling {
    /// Where it is told.
    pub(super) sheet: Sheet,
    /// How far each kind is.
    pub(super) marks: Marks,
    /// What was told last: revision of the reports, and marks.
    told: Option<(u64, ByKind)>,
}

impl Telling {
    /// Nothing was told yet.
    pub(super) fn new(sheet: Sheet) -> Self {
        Self { sheet, marks: Marks::default(), told: None }
    }

    /// A node that was rebooted enforces nothing, whatever its last report says.
    pub(super) fn standing(&self, standing: Standing) {
        match standing {
            Standing::Nothing => self.sheet.stands(ByKind::new(), Vec::new()),
            Standing::Lenient | Standing::Strict => {}
        }
    }

    /// Puts what stands on the sheet, if that is anything new.
    pub(super) fn tell(&mut self, phase: Phase, reports: &Reports) {
        match phase {
            Phase::Following if self.marks.are_adrift() => return,
            Phase::Following | Phase::Ended => {}
            Phase::Gathering | Phase::Adopting => return,
        }
        let now = (reports.revision(), self.marks.standing());
        if self.told.as_ref().is_some_and(|(revision, marks)| (*revision, marks) == now) {
            return;
        }
        self.told = Some((now.0, now.1.clone()));
        self.sheet.stands(now.1.clone(), reports.exceptions());
    }
}
