//! What is done in which world: an experiment's life as a table.

use serde_json::json;
use understudy_crds::{
    Candidate, ShadowExperimentStatus,
    condition::{ConditionStatus, Outcome, VerdictReason},
    status::Verdict,
};

use super::*;
use crate::controller::{
    objects::{
        self, change_revision,
        tests::{routed, settings, world},
    },
    rollout::{Stage, WorkerState},
    world::{Existing, MirrorSaid, Rival},
};

/// A plan in a few words: the phase, then the actions, objects by kind and name.
fn told(world: &World) -> String {
    let Plan { actions, status, again } = plan(world, &settings());
    let phase = status.as_ref().map_or("-".to_owned(), |status| format!("{:?}", status.phase));
    let actions: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Ensure(object) => format!("Ensure {:?} {}", object.kind, object.name),
            Action::Delete(kind, name) => format!("Delete {kind:?} {name}"),
            Action::Say(Saying { warning, reason, note }) => {
                format!("Say {}{reason}: {note}", if *warning { "!" } else { "" })
            }
            Action::RecordSelector(_) => "RecordSelector".to_owned(),
            Action::BeginRollout(record) => format!("BeginRollout {}", record.candidate.name),
            Action::Announce(notice) => format!("Announce {:?}", notice.state),
            Action::TellCandidates(notice) => {
                let host = |arm: &str| notice.arms.iter().find(|a| a.name == arm).map_or("", |a| a.host.as_str());
                let pod = |arm: &str| host(arm).split('.').next().unwrap_or_default().to_owned();
                let all = notice.candidates.iter().map(|c| format!("{} at {}", c.name, pod(&c.name)));
                format!("TellCandidates {}", all.collect::<Vec<_>>().join(", ")).trim_end().to_owned()
            }
            other => format!("{other:?}"),
        })
        .collect();
    format!("{phase} {again:?}\n  {}", actions.join("\n  ")).trim_end().to_owned()
}

/// Everything has been made, the mirror is ready and says this.
fn at_work(phase: Phase) -> World {
    let mut world = routed(world());
    let fit = examine(&world).unwrap();
    let objects = objects::wanted(&fit, &settings())
        .into_iter()
        .map(|o| ((o.kind, o.name), Existing { revision: o.revision, going: false, arm: o.arm }))
        .chain([((Kind::Secret, "idx-tls".to_owned()), Existing::default())])
        .collect();
    world.ours.objects = objects;
    let status = ShadowExperimentStatus { phase, ..ShadowExperimentStatus::default() };
    let candidates = objects::config::candidates(&examine(&world).unwrap(), &[]).version;
    if is_over(phase) {
        let tested = change_revision(world.experiment.spec.candidates.first());
        let text = json!({ "idx": tested }).to_string();
        world.experiment.annotations_mut().insert(understudy_crds::labels::TESTED.into(), text);
    }
    world.mirror = MirrorSaid { healthy: Some(true), silent: 0, status: Some(Box::new(status.clone())), candidates };
    world.ours.mirror = Some(
        serde_json::from_value(json!({
            "metadata": { "name": "idx-mirror" },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        }))
        .unwrap(),
    );
    world.experiment.status = Some(status);
    world
}

fn direct(mut world: World) -> World {
    world.service = super::super::objects::tests::world().service;
    world
}

fn verdict(outcome: Outcome) -> Verdict {
    Verdict { outcome, candidate: Some("idx".into()), reason: VerdictReason::CriteriaMet, message: "faster".into() }
}

#[test]
fn a_new_experiment_is_held_first_and_then_made() {
    let mut new = world();
    new.experiment.metadata.finalizers = None;
    assert_eq!(told(&new), "Pending Soon\n  AddFinalizer");
    insta::assert_snapshot!(told(&world()), @r"
    Cloning Soon
      RecordSelector
      MakeCertificates
      Ensure ConfigMap idx-mirror
      Ensure ConfigMap idx-baseline
      Ensure ConfigMap idx-idx
      Ensure Service idx-mirror
      Ensure Service idx-arms
      Ensure NetworkPolicy idx-mirror
      Ensure NetworkPolicy idx-arms
      Ensure Volume idx-baseline
      Ensure Volume idx-idx
      Ensure Pod idx-baseline
      Ensure Pod idx-idx
      Ensure Pod idx-mirror
      Say Cloning: the worker is being cloned
    ");
}

#[test]
fn what_is_not_fit_waits_and_says_why() {
    let mut rival = world();
    rival.rivals.push(Rival { name: "older".into(), first: true });
    insta::assert_snapshot!(told(&rival), @r"
    Pending Later
      Say !WorkerTaken: older is at work on events-0; one experiment at a time studies a worker
    ");
    let mut younger = world();
    younger.rivals.push(Rival { name: "younger".into(), first: false });
    assert!(told(&younger).starts_with("Cloning"));
    let mut missing = world();
    missing.stateful_set = None;
    insta::assert_snapshot!(told(&missing), @r"
    Pending Later
      Say !TargetMissing: spec.target.statefulSet.name: there is no StatefulSet `events` in namespace `db`
    ");
}

#[test]
fn the_mirror_takes_the_services_place_when_it_is_ready_and_not_before() {
    let ready = direct(at_work(Phase::Cloning));
    assert_eq!(told(&ready), "Cloning Soon\n  RouteToMirror");
    let mut starting = direct(at_work(Phase::Cloning));
    starting.mirror.healthy = None;
    assert_eq!(told(&starting), "Cloning Soon");
    let mut unrecorded = direct(at_work(Phase::Cloning));
    unrecorded.experiment.metadata.annotations = None;
    assert_eq!(told(&unrecorded), "Cloning Soon\n  RecordSelector");
    assert_eq!(told(&at_work(Phase::Observing)), "Observing Soon");
}

#[test]
fn the_kill_switch_is_thrown_before_anything_else() {
    let mut halted = at_work(Phase::Observing);
    halted.experiment.spec.halt = true;
    insta::assert_snapshot!(told(&halted), @r#"
    Halted Soon
      RouteDirect
      HaltMirror
      Delete ConfigMap idx-baseline
      Delete ConfigMap idx-idx
      Delete Volume idx-baseline
      Delete Volume idx-idx
      Delete Pod idx-baseline
      Delete Pod idx-idx
      RecordTested({"idx": "b661ab1c5e3475e1"})
      Say Halted: production goes direct
    "#);
}

#[test]
fn a_mirror_that_hangs_or_dies_is_taken_out_of_the_path() {
    let mut silent = at_work(Phase::Observing);
    silent.mirror = MirrorSaid { healthy: Some(false), silent: 2, ..MirrorSaid::default() };
    assert_eq!(told(&silent), "Observing Soon");
    silent.mirror.silent = 3;
    insta::assert_snapshot!(told(&silent), @r"
    Failed Soon
      RouteDirect
      Say !Failed: the mirror did not answer 3 times in a row; production goes direct
    ");
    let mut dead = at_work(Phase::Observing);
    dead.ours.mirror.as_mut().unwrap().status.as_mut().unwrap().phase = Some("Failed".into());
    assert!(told(&dead).contains("RouteDirect\n  Say !Failed: the mirror's pod has ended"), "{}", told(&dead));
    let mut gone = at_work(Phase::Observing);
    gone.ours.mirror = None;
    assert!(told(&gone).contains("RouteDirect"), "{}", told(&gone));
}

#[test]
fn a_mirror_that_is_gone_after_the_verdict_leaves_the_path_and_the_verdict_stands() {
    let mut better = at_work(Phase::Concluded);
    better.mirror.status.as_mut().unwrap().verdict = Some(verdict(Outcome::Better));
    better.experiment.status = better.mirror.status.clone().map(|status| *status);
    let mut gone = better.clone();
    gone.ours.mirror = None;
    gone.mirror = MirrorSaid::default();
    let mut silent = better.clone();
    silent.mirror = MirrorSaid { healthy: Some(false), silent: 3, ..MirrorSaid::default() };
    let leaves = |world: &World| {
        let plan = plan(world, &settings());
        assert_eq!(plan.actions.first(), Some(&Action::RouteDirect));
        let status = plan.status.unwrap();
        assert_eq!((status.phase, status.verdict), (Phase::Concluded, Some(verdict(Outcome::Better))));
    };
    leaves(&gone);
    leaves(&silent);
    // It does not come back: its arms have missed what went past it.
    assert!(!told(&direct(better)).contains("RouteToMirror"));
}

#[test]
fn a_service_that_somebody_changed_is_left_to_them() {
    let mut changed = at_work(Phase::Observing);
    let spec = changed.service.as_mut().unwrap().spec.as_mut().unwrap();
    spec.selector = Some([("app".to_owned(), "other".to_owned())].into());
    insta::assert_snapshot!(told(&changed), @r"
    Failed Soon
      RouteDirect
      Say !Failed: somebody changed the selector of Service `events-0`; production goes direct
    ");
}

/// The mirror works with the candidates as they are asked for now.
fn taken(mut world: World) -> World {
    world.mirror.candidates = objects::config::candidates(&examine(&world).unwrap(), &[]).version;
    world
}

#[test]
fn an_edited_candidate_is_told_first_and_then_its_own_arm_alone_is_replaced() {
    let mut changed = at_work(Phase::Observing);
    changed.experiment.spec.candidates[0].parameters.insert("work_mem".into(), "64MB".into());
    insta::assert_snapshot!(told(&changed), @r"
    Observing Soon
      TellCandidates idx at idx
      Ensure ConfigMap idx-mirror
    ");
    let mut silent = changed.clone();
    silent.mirror.status = None;
    assert_eq!(told(&silent), "Observing Soon\n  Ensure ConfigMap idx-mirror", "nothing is taken from under it");
    let mut replaced = taken(changed);
    insta::assert_snapshot!(told(&replaced), @r"
    Observing Soon
      Delete ConfigMap idx-idx
      Delete Volume idx-idx
      Delete Pod idx-idx
      Ensure ConfigMap idx-mirror
    ");
    replaced.ours.objects.retain(|_, found| found.arm.as_deref() != Some("idx"));
    insta::assert_snapshot!(told(&replaced), @r"
    Observing Soon
      Ensure ConfigMap idx-mirror
      Ensure ConfigMap idx-idx
      Ensure Volume idx-idx
      Ensure Pod idx-idx
    ");
}

#[test]
fn a_removed_candidate_goes_when_the_mirror_has_forgotten_it() {
    let mut removed = at_work(Phase::Observing);
    removed.experiment.spec.candidates.clear();
    removed.experiment.spec.success.clear();
    insta::assert_snapshot!(told(&removed), @r"
    Observing Soon
      TellCandidates
      Ensure ConfigMap idx-mirror
    ");
    insta::assert_snapshot!(told(&taken(removed)), @r"
    Observing Soon
      Delete ConfigMap idx-idx
      Delete Volume idx-idx
      Delete Pod idx-idx
      Ensure ConfigMap idx-mirror
    ");
}

#[test]
fn a_candidate_that_is_added_gets_an_arm_at_once() {
    let mut added = at_work(Phase::Observing);
    let another = Candidate { name: "other".into(), ..Candidate::default() };
    added.experiment.spec.candidates.push(another);
    insta::assert_snapshot!(told(&added), @r"
    Observing Soon
      TellCandidates idx at idx, other at other
      Ensure ConfigMap idx-mirror
      Ensure ConfigMap idx-other
      Ensure Volume idx-other
      Ensure Pod idx-other
    ");
}

#[test]
fn after_the_verdict_only_a_better_candidate_keeps_the_mirror_in_the_path() {
    let mut equal = at_work(Phase::Concluded);
    equal.mirror.status.as_mut().unwrap().verdict = Some(verdict(Outcome::Equivalent));
    assert!(
        told(&equal)
            .starts_with("Concluded Later\n  RouteDirect\n  KeepReport(Concluded)\n  Delete ConfigMap idx-baseline"),
        "{}",
        told(&equal)
    );
    let mut better = at_work(Phase::Concluded);
    better.mirror.status.as_mut().unwrap().verdict = Some(verdict(Outcome::Better));
    assert_eq!(told(&better), "Concluded Soon\n  KeepReport(Concluded)");
}

#[test]
fn what_was_edited_since_it_was_judged_is_not_promoted() {
    let mut asked = at_work(Phase::Concluded);
    asked.mirror.status.as_mut().unwrap().verdict = Some(verdict(Outcome::Better));
    asked.experiment.annotations_mut().insert(understudy_crds::labels::PROMOTE.into(), "idx".into());
    let mut unwritten = asked.clone();
    unwritten.experiment.annotations_mut().remove(understudy_crds::labels::TESTED);
    assert!(told(&unwritten).starts_with("Concluded Soon\n  RecordTested({\"idx\": "), "{}", told(&unwritten));
    assert!(!told(&unwritten).contains("BeginRollout"), "{}", told(&unwritten));
    let refused = |world: &World, why: &str| {
        let plan = plan(world, &settings());
        assert!(!plan.actions.iter().any(|action| matches!(action, Action::BeginRollout(_))), "{:?}", plan.actions);
        let status = plan.status.unwrap();
        let promoted = status.conditions.iter().find(|c| c.type_ == ConditionType::Promoted).unwrap();
        assert_eq!((promoted.status, promoted.reason), (ConditionStatus::False, ConditionReason::InvalidSpec));
        assert!(promoted.message.contains(why), "{}", promoted.message);
    };
    let mut edited = asked.clone();
    edited.experiment.spec.candidates[0].parameters.insert("work_mem".into(), "64MB".into());
    refused(&edited, "was edited since it was tested");
    let mut late = edited.clone();
    late.experiment.annotations_mut().remove(understudy_crds::labels::TESTED);
    assert!(told(&late).contains("RecordTested({})"), "edited before it was written down: {}", told(&late));
    unwritten.ours.mirror = None;
    unwritten.mirror = MirrorSaid::default();
    unwritten.experiment.status.as_mut().unwrap().verdict = Some(verdict(Outcome::Better));
    refused(&unwritten, "the mirror is gone");
}

#[test]
fn a_promotion_is_asked_for_written_down_driven_and_measured() {
    let mut asked = at_work(Phase::Concluded);
    asked.mirror.status.as_mut().unwrap().verdict = Some(verdict(Outcome::Better));
    asked.experiment.annotations_mut().insert(understudy_crds::labels::PROMOTE.into(), "idx".into());
    insta::assert_snapshot!(told(&asked), @r"
    Promoting Soon
      BeginRollout idx
      KeepReport(Concluded)
      Say Promoting: idx goes to 3 workers
    ");
    let mut record = Record::begin(&asked.experiment.spec.candidates[0], 0, asked.stateful_set.as_ref().unwrap());
    record.workers[0].state = WorkerState::Done;
    let with = |world: &World, record: &Record| {
        let mut world = world.clone();
        let text = serde_json::to_string(record).unwrap();
        world.experiment.annotations_mut().insert(understudy_crds::labels::ROLLOUT.into(), text);
        world
    };
    insta::assert_snapshot!(told(&with(&asked, &record)), @r"
    Promoting Soon
      Announce Began
      DriveRollout
      KeepReport(Concluded)
      Say Promoting: idx goes to the workers: 1 of 3, now events-1
    ");
    // The worker under study is restarted: the mirror has nobody to relay to, and nothing is measured then.
    let mut restarted = with(&asked, &record);
    restarted.mirror = MirrorSaid { healthy: Some(false), silent: 3, ..MirrorSaid::default() };
    insta::assert_snapshot!(told(&restarted), @r"
    Promoting Soon
      DriveRollout
      RouteDirect
      Say Promoting: idx goes to the workers: 1 of 3, now events-1
    ");
    assert_eq!(
        told(&direct(with(&asked, &record))).lines().skip(1).map(str::trim).collect::<Vec<_>>(),
        [
            "DriveRollout",
            "ReleaseMirror",
            "KeepReport(Concluded)",
            "Say Promoting: idx goes to the workers: 1 of 3, now events-1"
        ]
    );
    record.stage = Stage::Done;
    record.workers.iter_mut().for_each(|worker| worker.state = WorkerState::Done);
    let mut measuring = with(&asked, &record);
    measuring.mirror.status.as_mut().unwrap().phase = Phase::Promoting;
    assert_eq!(told(&measuring), "Promoting Soon\n  Announce Ended\n  Say Promoting: idx is on all 3 workers");
    measuring.mirror.status.as_mut().unwrap().phase = Phase::Promoted;
    assert!(told(&measuring).starts_with("Promoted Later\n  RouteDirect"), "{}", told(&measuring));
    record.stage = Stage::TakenBack;
    record.reason = Some("events-1: no".into());
    let mut world = with(&asked, &record);
    let warning = "Say !PromotionReverted: idx was taken back from all workers: events-1: no";
    assert!(told(&world).contains(warning), "{}", told(&world));
    let back = plan(&world, &settings()).status.unwrap();
    world.experiment.status = Some(back.clone());
    assert!(!told(&world).contains("!PromotionReverted"), "said once: {}", told(&world));
    let promoted = back.conditions.iter().find(|c| c.type_ == ConditionType::Promoted).unwrap();
    assert_eq!((back.phase, promoted.reason), (Phase::Concluded, ConditionReason::PromotionReverted));
}

#[test]
fn deletion_goes_direct_then_clears_then_lets_go() {
    let mut deleted = at_work(Phase::Observing);
    let now = deleted.now;
    deleted.experiment.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    let text = told(&deleted);
    assert!(text.starts_with("- Soon\n  RouteDirect\n  HaltMirror\n  Delete Secret idx-tls"), "{text}");
    let mut empty = direct(deleted);
    empty.ours.objects.clear();
    empty.mirror = MirrorSaid::default();
    assert_eq!(told(&empty), "- Soon\n  RemoveFinalizer");
    // A rollout that is under way is taken back, unless the workers have gone as well.
    let record = Record::begin(&empty.experiment.spec.candidates[0], 0, empty.stateful_set.as_ref().unwrap());
    let text = serde_json::to_string(&record).unwrap();
    empty.experiment.annotations_mut().insert(understudy_crds::labels::ROLLOUT.into(), text);
    assert_eq!(told(&empty), "- Soon\n  DriveRollout");
    empty.stateful_set = None;
    assert_eq!(told(&empty), "- Soon\n  RemoveFinalizer");
}
