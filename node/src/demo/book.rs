//! What one vehicle has sent and received.
//!
//! The book is kept outside of all nodes: the vehicle writes what it published and what was
//! acknowledged by whom, applications and the vehicle write what came.

use std::collections::BTreeMap;

use super::tally::{Flow, Sequence};

/// A position report, from the vehicle to the application of the roadside unit that took it.
#[derive(Debug, Clone, Default)]
struct Cam {
    /// The roadside unit that acknowledged it.
    acked_by: Option<u16>,
    /// The roadside units whose application has it.
    seen_at: Vec<u16>,
    /// Arrivals, repeated ones too.
    arrivals: u32,
}

impl Cam {
    fn is_owed(&self) -> bool {
        self.acked_by.is_some_and(|site| !self.seen_at.contains(&site))
    }
}

/// Most position reports of one vehicle: a day of ten a second.
const CAMS_MAX: usize = 864_000;

/// One vehicle's book.
#[derive(Debug, Clone, Default)]
pub struct Book {
    cams: Vec<Cam>,
    cams_acked: u64,
    /// Acknowledged, and not yet at the application of the unit that did.
    cams_owed: u64,
    cams_refused: u64,
    cams_out_of_order: u64,
    cams_invented: u64,
    /// Highest number the application of a roadside unit has.
    cam_highest: BTreeMap<u16, u64>,
    /// Commands that came.
    commands: Sequence,
    /// Commands the operator has sent.
    commands_sent: u64,
    /// Warnings that came, by the roadside unit whose application sent them.
    denms: BTreeMap<u16, Sequence>,
    /// Whether a greeting of the operator has come: its commands find the way.
    greeted_by_operator: bool,
    /// Roadside units whose application's greeting has come: its warnings find the way.
    greeted_by: Vec<u16>,
}

impl Book {
    /// The vehicle publishes its next position report: its number, unless there are too many.
    pub fn cam_sent(&mut self) -> Option<u64> {
        if self.cams.len() == CAMS_MAX {
            return None;
        }
        self.cams.push(Cam::default());
        Some(self.cams.len() as u64 - 1)
    }

    /// A roadside unit acknowledged a report.
    pub fn cam_acked(&mut self, number: u64, site: usize) {
        let Some(cam) = self.cams.get_mut(number as usize) else { return };
        if cam.acked_by.is_none() {
            cam.acked_by = Some(index(site));
            self.cams_acked += 1;
            self.cams_owed += u64::from(cam.is_owed());
        }
    }

    /// A roadside unit did not accept a report; nothing is owed.
    pub fn cam_refused(&mut self, _number: u64) {
        self.cams_refused += 1;
    }

    /// A report came to the application of a roadside unit.
    pub fn cam_arrived(&mut self, number: u64, site: usize) {
        let site = index(site);
        let Some(cam) = self.cams.get_mut(number as usize) else {
            self.cams_invented += 1;
            return;
        };
        cam.arrivals += 1;
        if cam.seen_at.contains(&site) {
            return;
        }
        let was_owed = cam.is_owed();
        cam.seen_at.push(site);
        self.cams_owed -= u64::from(was_owed && !cam.is_owed());
        let highest = self.cam_highest.entry(site).or_insert(number);
        if number < *highest {
            self.cams_out_of_order += 1;
        }
        *highest = number.max(*highest);
    }

    /// The operator sends the vehicle its next command: its number.
    pub fn command_sent(&mut self) -> u64 {
        self.commands_sent += 1;
        self.commands_sent - 1
    }

    /// A command came.
    pub fn command_arrived(&mut self, number: u64) {
        self.commands.note(number);
    }

    /// A warning of a roadside unit's application came.
    pub fn denm_arrived(&mut self, number: u64, site: usize) {
        self.denms.entry(index(site)).or_default().note(number);
    }

    /// A greeting came, from the operator or a roadside unit's application.
    pub fn greeted(&mut self, by: Greeter) {
        match by {
            Greeter::Operator => self.greeted_by_operator = true,
            Greeter::Application(site) => {
                let site = index(site);
                if !self.greeted_by.contains(&site) {
                    self.greeted_by.push(site);
                }
            }
        }
    }

    /// Whether this sender's greeting has come.
    #[must_use]
    pub fn is_greeted(&self, by: Greeter) -> bool {
        match by {
            Greeter::Operator => self.greeted_by_operator,
            Greeter::Application(site) => self.greeted_by.contains(&index(site)),
        }
    }

    /// Whether everybody's greeting has come.
    #[must_use]
    pub fn is_greeted_by_all(&self, sites: usize) -> bool {
        self.greeted_by_operator && self.greeted_by.len() == sites
    }

    /// Commands sent and not received.
    #[must_use]
    pub fn commands_owed(&self) -> u64 {
        self.commands_sent.saturating_sub(self.commands.distinct())
    }

    /// Commands sent and not received, by number.
    pub fn commands_missing(&self) -> impl Iterator<Item = u64> {
        self.commands.missing(self.commands_sent)
    }

    /// Warnings of a roadside unit that did not come, by number, of `sent` it has sent.
    pub fn denms_missing(&self, site: usize, sent: u64) -> Vec<u64> {
        let nothing = Sequence::default();
        self.denms.get(&index(site)).unwrap_or(&nothing).missing(sent).collect()
    }

    /// Reports acknowledged and not at their application, or not acknowledged.
    #[must_use]
    pub fn cams_owed(&self) -> u64 {
        let open = self.cams.len() as u64 - self.cams_acked - self.cams_refused;
        self.cams_owed + open
    }

    /// Warnings sent and not received. `sent` tells how many a unit's application has sent to this
    /// vehicle's area.
    #[must_use]
    pub fn denms_owed(&self, sent: impl Fn(usize) -> u64, sites: usize) -> u64 {
        let owed = |site: usize| {
            let received = self.denms.get(&index(site)).map_or(0, Sequence::distinct);
            sent(site).saturating_sub(received)
        };
        (0..sites).map(owed).sum()
    }

    /// Reports that roadside unit acknowledged.
    #[must_use]
    pub fn cams_acked_by(&self, site: usize) -> u64 {
        let site = Some(index(site));
        self.cams.iter().filter(|cam| cam.acked_by == site).count() as u64
    }

    /// What became of the operator's commands.
    #[must_use]
    pub fn command_flow(&self) -> Flow {
        self.commands.flow(self.commands_sent)
    }

    /// What became of the position reports a roadside unit has acknowledged.
    #[must_use]
    pub fn cam_flow(&self) -> Flow {
        let arrivals: u64 = self.cams.iter().map(|cam| u64::from(cam.arrivals)).sum();
        let seen = self.cams.iter().filter(|cam| !cam.seen_at.is_empty()).count() as u64;
        Flow {
            sent: self.cams_acked,
            delivered: self.cams_acked - self.cams_owed,
            lost: self.cams_owed,
            duplicated: arrivals - seen,
            out_of_order: self.cams_out_of_order,
            invented: self.cams_invented,
        }
    }

    /// What became of the warnings for this vehicle's area.
    #[must_use]
    pub fn denm_flow(&self, sent: impl Fn(usize) -> u64, sites: usize) -> Flow {
        let mut flow = Flow::default();
        let nothing = Sequence::default();
        for site in 0..sites {
            let received = self.denms.get(&index(site)).unwrap_or(&nothing);
            flow.add(received.flow(sent(site)));
        }
        flow
    }

    /// Position reports that were refused.
    #[must_use]
    pub fn cams_refused(&self) -> u64 {
        self.cams_refused
    }
}

/// Who says hello before the traffic starts, to see that the way is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeter {
    /// The fleet operator at the regional node.
    Operator,
    /// The application at a roadside unit.
    Application(usize),
}

fn index(site: usize) -> u16 {
    u16::try_from(site).expect("RSUS_MAX sites have 16 bit indices")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_owed_from_its_acknowledgement_to_its_arrival_at_the_same_unit() {
        let mut book = Book::default();
        let number = book.cam_sent().unwrap();
        assert_eq!((book.cams_owed(), book.cam_flow().sent), (1, 0), "sent, nothing promised");
        book.cam_arrived(number, 1);
        book.cam_acked(number, 0);
        assert_eq!((book.cams_owed(), book.cam_flow().lost), (1, 1), "unit 0 has promised it");
        book.cam_arrived(number, 0);
        assert_eq!(book.cams_owed(), 0);
        let flow = book.cam_flow();
        assert_eq!((flow.delivered, flow.lost, flow.duplicated), (1, 0, 1));
        assert_eq!((book.cams_acked_by(0), book.cams_acked_by(1)), (1, 0));
    }

    #[test]
    fn a_report_may_arrive_before_its_acknowledgement_and_again() {
        let mut book = Book::default();
        for _ in 0..3 {
            let number = book.cam_sent().unwrap();
            book.cam_arrived(number, 0);
            book.cam_acked(number, 0);
        }
        book.cam_arrived(0, 0);
        book.cam_arrived(9, 0);
        let wanted = Flow { sent: 3, delivered: 3, duplicated: 1, invented: 1, ..Flow::default() };
        assert_eq!(book.cam_flow(), wanted);
        assert_eq!(book.cams_owed(), 0);
    }

    #[test]
    fn a_refused_report_is_owed_to_nobody() {
        let mut book = Book::default();
        let number = book.cam_sent().unwrap();
        book.cam_refused(number);
        assert_eq!((book.cams_owed(), book.cams_refused()), (0, 1));
    }

    #[test]
    fn order_is_that_of_each_application() {
        let mut book = Book::default();
        for _ in 0..4 {
            book.cam_sent();
        }
        for (number, site) in [(0, 0), (2, 1), (1, 0), (3, 0), (1, 1)] {
            book.cam_arrived(number, site);
        }
        assert_eq!(book.cam_flow().out_of_order, 1);
    }

    #[test]
    fn warnings_are_followed_by_their_source() {
        let mut book = Book::default();
        book.denm_arrived(0, 0);
        book.denm_arrived(0, 1);
        book.denm_arrived(0, 1);
        let sent = |site| [2, 1][site];
        assert_eq!(book.denms_owed(sent, 2), 1);
        let flow = book.denm_flow(sent, 2);
        assert_eq!((flow.sent, flow.delivered, flow.lost, flow.duplicated), (3, 2, 1, 1));
    }

    #[test]
    fn a_vehicle_is_ready_when_everybody_has_greeted() {
        let mut book = Book::default();
        book.greeted(Greeter::Operator);
        book.greeted(Greeter::Application(0));
        book.greeted(Greeter::Application(0));
        assert!(!book.is_greeted_by_all(2) && !book.is_greeted(Greeter::Application(1)));
        book.greeted(Greeter::Application(1));
        assert!(book.is_greeted_by_all(2));
    }
}
