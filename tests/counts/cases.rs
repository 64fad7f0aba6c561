//! What is counted.

use verge_mqtt_proto::QoS;

use crate::rig::Rig;
use crate::rig::cases::{BATCH, Case};

/// Steps of one case.
pub(crate) const STEPS: u64 = 100;

/// One case.
pub(crate) struct Counted {
    /// As `expected.txt` names it.
    pub(crate) name: &'static str,
    /// What one step is divided by.
    pub(crate) messages: u64,
    /// Makes what does a step.
    pub(crate) make: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub(crate) const CASES: &[Counted] = &[
    counted("publish qos 0 to 1", 1, || steps(Case::fan_out(1, 1, QoS::AtMostOnce))),
    counted("publish qos 1 to 1", 1, || steps(Case::fan_out(1, 1, QoS::AtLeastOnce))),
    counted("publish qos 2 to 1", 1, || steps(Case::fan_out(1, 1, QoS::ExactlyOnce))),
    counted("publish qos 0 to 20", 1, || steps(Case::fan_out(1, 20, QoS::AtMostOnce))),
    counted("publish qos 1 to 20", 1, || steps(Case::fan_out(1, 20, QoS::AtLeastOnce))),
    counted("publish qos 0, 16 at once", BATCH as u64, || steps(Case::batch(1, QoS::AtMostOnce))),
    counted("publish qos 1, 16 at once", BATCH as u64, || steps(Case::batch(1, QoS::AtLeastOnce))),
    counted("subscribe and unsubscribe", 1, subscribing),
    counted("connect and leave", 1, connecting),
];

const fn counted(name: &'static str, messages: u64, make: fn() -> Box<dyn FnMut()>) -> Counted {
    Counted { name, messages, make }
}

fn steps(mut case: Case) -> Box<dyn FnMut()> {
    case.check();
    Box::new(move || case.step())
}

fn subscribing() -> Box<dyn FnMut()> {
    let mut rig = Rig::new(1);
    let client = rig.connect("vehicle-17", true);
    Box::new(move || {
        rig.subscribe(client, "region/v2x/+/17/#", QoS::AtLeastOnce);
        rig.unsubscribe(client, "region/v2x/+/17/#");
    })
}

fn connecting() -> Box<dyn FnMut()> {
    let mut rig = Rig::new(1);
    Box::new(move || {
        let client = rig.connect("vehicle-17", true);
        rig.close(client);
    })
}
