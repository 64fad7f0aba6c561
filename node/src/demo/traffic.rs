//! The middle of a run: greetings, then traffic, with the faults at their times.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::cluster::Cluster;
use super::progress::Progress;
use super::report::{Faults, number};
use super::world::{Phase, World};

/// How long all clients may take to connect and hear each other's greetings.
const GREET_WITHIN: Duration = Duration::from_secs(180);
/// How often the state of things is looked at and shown.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Waits until every client is subscribed and every sender's way to every vehicle is known.
///
/// # Errors
/// That takes too long; says who is missing.
pub async fn greet(world: &World, progress: &mut Progress) -> Result<(), String> {
    let deadline = Instant::now() + GREET_WITHIN;
    loop {
        let applications = world.counts.applications_ready.load(Ordering::Relaxed);
        let (greeted, vehicles) = (world.greeted(), world.vehicles());
        let connected = world.counts.connected.load(Ordering::Relaxed);
        if applications == world.sites.len() as u64 && greeted == vehicles {
            return Ok(());
        }
        let state = format!(
            "{connected} of {vehicles} vehicles connected, {greeted} reached by everybody, \
             {applications} of {} applications subscribed",
            world.sites.len()
        );
        if Instant::now() >= deadline {
            return Err(format!("not ready after {} s: {state}", GREET_WITHIN.as_secs()));
        }
        progress.show(&state);
        sleep(LOOK_EVERY).await;
    }
}

/// A fault, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Kill(usize),
    Restart(usize),
    Cut,
    Restore,
}

/// Runs the traffic of the scenario, and its faults.
///
/// # Errors
/// A node ended that was not killed, or does not come back.
pub async fn run(
    world: &World,
    cluster: &mut Cluster,
    progress: &mut Progress,
) -> Result<Faults, String> {
    let scenario = &world.scenario;
    let start = Instant::now();
    // The last row's reports are spread over a row's time.
    let end = start + scenario.length() + scenario.span(1.0);
    let mut steps = steps(world);
    let mut faults = Faults::default();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    world.enter(Phase::Running(start));
    loop {
        let next = steps.first().copied();
        let next_at = next.map_or(end, |(at, _)| start + at);
        tokio::select! {
            () = sleep_until(end) => break,
            () = sleep_until(next_at), if next.is_some() => {
                let Some((_, step)) = next else { continue };
                steps.remove(0);
                perform(step, start, world, cluster, &mut faults, progress).await?;
            }
            _ = look.tick() => {
                if let Some(casualty) = cluster.casualty() {
                    return Err(casualty);
                }
                progress.show(&state(world, start));
            }
        }
    }
    faults.datagrams_dropped = cluster.relays.dropped();
    Ok(faults)
}

/// All faults and their ends, by time from the start of the traffic.
fn steps(world: &World) -> Vec<(Duration, Step)> {
    let mut steps = Vec::new();
    if let Some(kill) = world.scenario.kill {
        steps.push((kill.at, Step::Kill(kill.site)));
        steps.push((kill.at + kill.down, Step::Restart(kill.site)));
    }
    if let Some(cut) = world.scenario.cut {
        steps.push((cut.at, Step::Cut));
        steps.push((cut.until, Step::Restore));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

async fn perform(
    step: Step,
    start: Instant,
    world: &World,
    cluster: &mut Cluster,
    faults: &mut Faults,
    progress: &mut Progress,
) -> Result<(), String> {
    let now = start.elapsed().as_secs_f64();
    match step {
        Step::Kill(site) => {
            let id = &world.sites[site].id;
            progress.tell(&format!("{now:.1} s: {id} is killed"));
            world.set_up(site, false);
            cluster.kill(site).await;
            faults.killed = Some(id.clone());
            faults.killed_at_secs = Some(now);
        }
        Step::Restart(site) => {
            cluster.restart(site).await?;
            world.set_up(site, true);
            let now = start.elapsed().as_secs_f64();
            faults.down_secs = faults.killed_at_secs.map(|at| now - at);
            progress.tell(&format!("{now:.1} s: {} serves again", world.sites[site].id));
        }
        Step::Cut => {
            cluster.relays.cut();
            faults.cut_at_secs = Some(now);
            progress.tell(&format!("{now:.1} s: the link to the cloud tier is cut"));
        }
        Step::Restore => {
            cluster.relays.restore();
            faults.cut_until_secs = Some(now);
            progress.tell(&format!("{now:.1} s: the link to the cloud tier is restored"));
        }
    }
    Ok(())
}

fn state(world: &World, start: Instant) -> String {
    let (flows, moves) = (world.flows(), world.moves());
    let scenario = &world.scenario;
    let length = f64::from(scenario.trace.end_ms()) / 1000.0;
    let at = (start.elapsed().as_secs_f64() * scenario.speed).min(length);
    let connected = world.counts.connected.load(Ordering::Relaxed);
    format!(
        "{at:.0} of {length:.0} s: {connected} of {} vehicles connected, {} of {} handovers, {} \
         commands, {} positions, {} warnings arrived",
        world.vehicles(),
        moves.made + moves.merged,
        scenario.attachments.handovers(),
        number(flows.commands.delivered),
        number(flows.cams.delivered),
        number(flows.denms.delivered),
    )
}
