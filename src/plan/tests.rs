//! The arithmetic of plans, against numbers worked out by hand or given by the paper.

use std::path::Path;
use std::time::Duration;

use crate::advice::{Advice, Audience};
use crate::config::{LoadRequest, RunConfig, ScheduleKind, load};
use crate::plan::{Corpus, MemoryNeed, ModelShape, PlanError, RunPlan, Schedule, StageSpeed};

/// A text of `train_tokens` tokens, read by a tokenizer of 500.
fn corpus(train_tokens: u64) -> Corpus {
    Corpus {
        tokenizer_vocab_size: 500,
        train_tokens: Some(train_tokens),
        entropy_rate: None,
        device_is_cpu: true,
    }
}

/// The default network on 64 positions and 4096 tokens per step, with `sets` on top.
fn config(sets: &[&str]) -> RunConfig {
    let sizes = [
        "training.context_length=64",
        "training.tokens_per_step=4096",
        "training.micro_batch_size=16",
        "model.max_position_embeddings=256",
    ];
    let stages = two_stages(4, "2/3");
    let sets: Vec<String> =
        sizes.iter().chain([&stages.as_str()]).chain(sets).map(ToString::to_string).collect();
    load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") }).unwrap().config
}

fn plan(sets: &[&str]) -> RunPlan {
    RunPlan::new(&config(sets), &corpus(1 << 40)).unwrap()
}

fn refusal(sets: &[&str]) -> PlanError {
    RunPlan::new(&config(sets), &corpus(1 << 40)).unwrap_err()
}

fn steps(plan: &RunPlan) -> Vec<u64> {
    plan.stages.iter().map(|stage| stage.steps).collect()
}

/// Two stages, of which the first has `patch_size` and `share`.
fn two_stages(patch_size: u32, share: &str) -> String {
    format!("stages=[{{patch_size={patch_size}, share=\"{share}\"}}, {{patch_size=1}}]")
}

#[test]
fn the_run_is_rounded_down_to_steps_and_the_rest_goes_to_the_stage_without_a_share() {
    let table: [(&str, &str, &[u64]); 6] = [
        ("training.tokens=3M", &two_stages(4, "2/3"), &[488, 244]),
        ("training.tokens=12287", &two_stages(4, "1/2"), &[1, 1]),
        ("training.tokens=12288", &two_stages(4, "1/2"), &[2, 1]),
        (
            "training.steps=100",
            "stages=[{patch_size=8,share=0.334},{patch_size=4},{patch_size=1,share=0.333}]",
            &[33, 34, 33],
        ),
        (
            "training.steps=10",
            "stages=[{patch_size=4,share=0.26},{patch_size=1,share=0.74}]",
            &[3, 7],
        ),
        ("training.steps=10", "stages=[{patch_size=1}]", &[10]),
    ];
    for (budget, stages, expected) in table {
        let plan = plan(&[budget, stages]);
        assert_eq!(steps(&plan), expected, "{budget} {stages}");
        assert_eq!(plan.steps, expected.iter().sum::<u64>());
        assert_eq!(plan.cost.tokens, plan.steps * 4096);
    }
}

#[test]
fn every_budget_leads_to_the_same_run() {
    let by_tokens = plan(&["training.tokens=2457600"]);
    assert_eq!(by_tokens.steps, 600);
    assert_eq!(plan(&["training.steps=600"]), by_tokens);
    // 400 steps of 1024 positions and 200 of 4096: half as many positions as tokens.
    assert_eq!(by_tokens.cost.positions, 1_228_800);
    assert_eq!(plan(&["training.positions=1228801"]), by_tokens);

    // One block is 256 tokens, so 100 of the text's tokens are never read.
    let text = corpus(409_600 + 100);
    let by_epochs = RunPlan::new(&config(&["training.epochs=6"]), &text).unwrap();
    assert_eq!(by_epochs.steps, 600);
    assert_eq!(by_epochs.epochs(), Some(6.0));
    assert_eq!(RunPlan::new(&config(&["training.epochs=0.5"]), &text).unwrap().steps, 50);
    assert_eq!(by_epochs.warnings, [] as [&str; 0]);
    let notes = [
        "dropped 100 trailing training tokens (incomplete block of 256; 409700 in total)",
        "the run takes 6.00 epochs of the training text",
    ];
    assert_eq!(by_epochs.notes, notes);
    let one_more = RunPlan::new(&config(&["training.steps=10"]), &corpus(409_601)).unwrap();
    assert_eq!(
        one_more.notes,
        ["dropped 1 trailing training token (incomplete block of 256; 409601 in total)"]
    );
    let unknown = Corpus { train_tokens: None, ..text };
    assert_eq!(
        RunPlan::new(&config(&["training.epochs=6"]), &unknown),
        Err(PlanError::CorpusUnknown)
    );
    assert_eq!(RunPlan::new(&config(&["training.steps=600"]), &unknown).unwrap().epochs(), None);
}

#[test]
fn stages_follow_one_another_without_a_gap() {
    let plan = plan(&[
        "training.steps=30",
        "stages=[{patch_size=4,share=0.5},{patch_size=2,share=0.2},{patch_size=1}]",
    ]);
    let starts: Vec<(u64, u64, u64)> = plan
        .stages
        .iter()
        .map(|stage| (stage.first_step, stage.first_token, stage.first_data_token))
        .collect();
    assert_eq!(starts, [(0, 0, 0), (15, 61_440, 61_440), (21, 86_016, 86_016)]);
    assert_eq!(
        [0, 14, 15, 20, 21, 29, 30].map(|completed| plan.stage_idx_after(completed)),
        [0, 0, 1, 1, 2, 2, 2]
    );
    let cost = plan.cost_after(17);
    assert_eq!((cost.tokens, cost.positions), (17 * 4096, 15 * 1024 + 2 * 2048));
    assert_eq!(plan.cost_after(30), plan.cost);
    assert_eq!(plan.cost_after(0).tokens, 0);
}

#[test]
fn a_stage_may_have_its_own_numbers() {
    let stages = "stages=[{patch_size=4,share=0.5,context_length=32,tokens_per_step=2048,\
                  micro_batch_size=3,learning_rate=0.5,warmup_steps=7},{patch_size=1}]";
    let plan = plan(&[
        "training.steps=20",
        "optimizer.learning_rate=0.25",
        "schedule.warmup_steps=2",
        stages,
    ]);
    let (first, second) = (&plan.stages[0], &plan.stages[1]);
    assert_eq!(
        (first.steps, first.context_length, first.tokens_per_step),
        (20, 32, 2048),
        "half the tokens per step, twice the steps"
    );
    assert_eq!(
        (first.micro_batch_size, first.num_micro_batches),
        (2, 8),
        "16 sequences of 128 tokens"
    );
    assert_eq!((first.schedule.peak, first.schedule.warmup_steps), (0.5, 7));
    assert_eq!(
        (second.steps, second.first_token, second.context_length, second.micro_batch_size),
        (10, 40_960, 64, 16)
    );
    assert_eq!((second.schedule.peak, second.schedule.warmup_steps), (0.25, 2));
}

#[test]
fn the_micro_batch_is_the_largest_divisor_that_is_allowed() {
    // At K = 4 a step has 16 sequences, at K = 1 it has 64.
    for (allowed, expected) in [
        (1, [1, 1]),
        (3, [2, 2]),
        (6, [4, 4]),
        (15, [8, 8]),
        (16, [16, 16]),
        (50, [16, 32]),
        (1000, [16, 64]),
    ] {
        let plan = plan(&[&format!("training.micro_batch_size={allowed}")]);
        assert_eq!(
            [0, 1].map(|idx| plan.stages[idx].micro_batch_size),
            expected,
            "at most {allowed}"
        );
        assert_eq!([0, 1].map(|idx| plan.stages[idx].sequences_per_step()), [16, 64]);
    }
    let plan = plan(&["training.tokens_per_step=3328", "training.micro_batch_size=12"]);
    assert_eq!([0, 1].map(|idx| plan.stages[idx].micro_batch_size), [1, 4], "13 and 52 sequences");
}

#[test]
fn the_first_patch_of_a_sequence_is_no_target() {
    let plan = plan(&[]);
    assert_eq!([0, 1].map(|idx| plan.stages[idx].sequence_tokens()), [256, 64]);
    assert_eq!([0, 1].map(|idx| plan.stages[idx].targets_per_step()), [16 * 63 * 4, 64 * 63]);
}

#[test]
fn a_block_can_be_cut_into_the_sequences_of_every_stage() {
    let block =
        |sets: &[&str]| plan(&[&["training.tokens_per_step=6144"], sets].concat()).block_tokens;
    assert_eq!(block(&["stages=[{patch_size=1}]"]), 64);
    assert_eq!(block(&[&two_stages(8, "1/2")]), 8 * 64);
    assert_eq!(
        block(&["stages=[{patch_size=4,share=0.3},{patch_size=6,share=0.3},{patch_size=1}]"]),
        12 * 64
    );
    assert_eq!(
        block(&["stages=[{patch_size=4,share=0.3},{patch_size=1,context_length=96}]"]),
        768,
        "lcm of 256 and 96"
    );
    assert_eq!(block(&["data.block_tokens=1536"]), 1536);
    let uneven = refusal(&["data.block_tokens=1000"]);
    assert_eq!(uneven, PlanError::UnevenBlock { block_tokens: 1000, common: 256 });
    assert_eq!(uneven.hint(Audience::Command), "use data.block_tokens = 1024");
}

#[test]
fn numbers_that_do_not_fit_are_refused_with_numbers_that_do() {
    let stages = |stages: &str| format!("stages={stages}");
    let table = [
        (
            "training.tokens_per_step=4000".to_owned(),
            "training.tokens_per_step = 4000 is not a whole number of sequences in stage 1 \
             (patch_size 4 * context_length 64 = 256 tokens)",
            "use training.tokens_per_step = 3840 or 4096",
        ),
        (
            "training.tokens_per_step=100".to_owned(),
            "training.tokens_per_step = 100 is not a whole number of sequences in stage 1 \
             (patch_size 4 * context_length 64 = 256 tokens)",
            "use training.tokens_per_step = 256",
        ),
        (
            stages("[{patch_size=3,share=0.5},{patch_size=2}]"),
            "training.tokens_per_step = 4096 is not a whole number of sequences in stage 1 \
             (patch_size 3 * context_length 64 = 192 tokens)",
            "use training.tokens_per_step = 3840 or 4224",
        ),
        (
            "training.context_length=512".to_owned(),
            "context_length = 512 of stage 1 is longer than model.max_position_embeddings = 256",
            "lower context_length, or set model.max_position_embeddings = 512",
        ),
        (
            stages("[{patch_size=4,share=0.5},{patch_size=1,share=0.6}]"),
            "the stage shares add up to 1.1000, not 1",
            "remove the share of one stage: it then takes the rest",
        ),
        (
            stages("[{patch_size=4,share=1.0},{patch_size=1}]"),
            "the stage shares add up to 1.0000, so nothing is left for the stage without a share",
            "remove the share of one stage: it then takes the rest",
        ),
        (
            stages("[{patch_size=4},{patch_size=1}]"),
            "2 stages have no share, so it is not clear how to divide the rest among them",
            "set a share for all stages but one, e.g. share = \"2/3\"",
        ),
        (
            "training.tokens=4100".to_owned(),
            "stage 2 would have no steps: the run has 1 step of 4096 tokens",
            "raise training.tokens (or positions, epochs, steps), or lower \
             training.tokens_per_step below 4096",
        ),
        (
            "model.vocab_size=499".to_owned(),
            "model.vocab_size = 499 is too small: the tokenizer has 500 tokens",
            "remove model.vocab_size, or set it to 512 (the next multiple of 64)",
        ),
    ];
    for (set, message, hint) in table {
        let error = refusal(&[&set]);
        assert_eq!(
            (error.to_string().as_str(), error.hint(Audience::Command).as_str()),
            (message, hint),
            "for {set}"
        );
    }
    let short = RunPlan::new(&config(&[]), &corpus(255)).unwrap_err();
    assert_eq!(short.to_string(), "the training text has 255 tokens, fewer than one block of 256");
}

#[test]
fn the_vocabulary_is_that_of_the_tokenizer_rounded_up() {
    assert_eq!(plan(&[]).model.vocab_size, 512);
    assert_eq!(plan(&["model.vocab_size=500"]).model.vocab_size, 500);
}

/// The values of `completed` and of the learning rate there.
fn check_rates(schedule: &Schedule, expected: &[(u64, f64)]) {
    for (completed, rate) in expected {
        let found = schedule.learning_rate(*completed);
        assert!(
            (found - rate).abs() < 1e-12,
            "{:?} after {completed}: {found}, not {rate}",
            schedule.kind
        );
    }
}

fn schedule(kind: ScheduleKind) -> Schedule {
    Schedule { kind, peak: 0.8, minimum: 0.0, warmup_steps: 10, decay_steps: 0, steps: 110 }
}

#[test]
fn the_cosine_is_that_of_hugging_face() {
    // get_cosine_schedule_with_warmup(num_warmup_steps=10, num_training_steps=110) with a peak of
    // 0.8: step / 10 below 10, then 0.5 * (1 + cos(pi * (step - 10) / 100)).
    let quarter = 0.4 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
    check_rates(
        &schedule(ScheduleKind::Cosine),
        &[
            (0, 0.0),
            (1, 0.08),
            (9, 0.72),
            (10, 0.8),
            (35, quarter),
            (60, 0.4),
            (85, 0.8 - quarter),
            (110, 0.0),
            (999, 0.0),
        ],
    );
    let third = 0.75 * 0.8;
    check_rates(
        &Schedule { steps: 190, ..schedule(ScheduleKind::Cosine) },
        &[(70, third), (190, 0.0)],
    );
    check_rates(
        &Schedule { minimum: 0.2, ..schedule(ScheduleKind::Cosine) },
        &[(0, 0.0), (5, 0.4), (10, 0.8), (60, 0.5), (110, 0.2)],
    );
    check_rates(
        &Schedule { warmup_steps: 0, ..schedule(ScheduleKind::Cosine) },
        &[(0, 0.8), (55, 0.4), (110, 0.0)],
    );
}

#[test]
fn the_other_schedules_fall_in_straight_lines_or_not_at_all() {
    check_rates(
        &schedule(ScheduleKind::Linear),
        &[(0, 0.0), (10, 0.8), (35, 0.6), (60, 0.4), (110, 0.0)],
    );
    check_rates(
        &schedule(ScheduleKind::Constant),
        &[(0, 0.0), (5, 0.4), (10, 0.8), (60, 0.8), (110, 0.8)],
    );
    let wsd = Schedule { decay_steps: 20, minimum: 0.2, ..schedule(ScheduleKind::Wsd) };
    check_rates(&wsd, &[(0, 0.0), (10, 0.8), (60, 0.8), (90, 0.8), (100, 0.5), (110, 0.2)]);
}

#[test]
fn every_stage_has_a_schedule_of_its_own() {
    let plan = plan(&[
        "training.steps=300",
        "schedule.kind=wsd",
        "schedule.warmup_share=0.1",
        "optimizer.learning_rate=0.025",
        "schedule.min_learning_rate=0.005",
    ]);
    let expected = |steps, warmup_steps, decay_steps| Schedule {
        kind: ScheduleKind::Wsd,
        peak: 0.025,
        minimum: 0.005,
        warmup_steps,
        decay_steps,
        steps,
    };
    assert_eq!(plan.stages[0].schedule, expected(200, 20, 20));
    assert_eq!(plan.stages[1].schedule, expected(100, 10, 10));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

/// Warnings of a run whose parts are set by `sets`.
fn warnings(sets: &[&str]) -> Vec<String> {
    plan(sets).warnings
}

/// Bug report 16.
#[test]
fn a_warm_up_that_takes_its_whole_stage_is_a_warning() {
    let longer = plan(&["training.steps=30", "schedule.warmup_steps=15"]);
    assert_eq!([0, 1].map(|idx| longer.stages[idx].schedule.warmup_steps), [15, 10]);
    let cut = "stage 2: the warm-up is cut from 15 to 10 steps and takes the whole stage: the \
               learning rate never reaches its peak";
    assert_eq!(longer.warnings, [cut]);
    let exact = "stage 2: the warm-up of 10 steps takes the whole stage: the learning rate never \
                 reaches its peak";
    assert_eq!(warnings(&["training.steps=30", "schedule.warmup_steps=10"]), [exact]);
    let own = "stages=[{patch_size=4,share=\"2/3\"},{patch_size=1,warmup_steps=10}]";
    assert_eq!(warnings(&["training.steps=30", own]), [exact], "a stage's own warm-up likewise");
    let all_but_one = "stage 2: the warm-up takes 9 of 10 steps: the learning rate never decays";
    assert_eq!(warnings(&["training.steps=30", "schedule.warmup_steps=9"]), [all_but_one]);
    assert_eq!(
        warnings(&["training.steps=30", "schedule.warmup_steps=9", "schedule.kind=constant"]),
        [""; 0]
    );
    assert_eq!(warnings(&["training.steps=30", "schedule.warmup_steps=8"]), [""; 0]);
}

/// Bug report 15.
#[test]
fn a_warm_up_and_a_decay_that_overlap_leave_no_jump() {
    let overlapping = |warmup: u64, decay: &str| {
        let stage = format!("stages=[{{patch_size=1,warmup_steps={warmup}}}]");
        plan(&[
            "training.steps=20",
            "schedule.kind=wsd",
            &format!("schedule.decay_share={decay}"),
            "optimizer.learning_rate=0.01",
            &stage,
        ])
    };
    let plan = overlapping(10, "0.8");
    assert_eq!(
        plan.warnings,
        ["stage 1: warm-up (10 steps) and decay (16 steps) overlap in 20 steps: the decay is cut \
          to 10 steps"]
    );
    for (warmup, decay) in
        [(10, "0.8"), (1, "1.0"), (19, "0.5"), (20, "0.5"), (0, "1.0"), (15, "0.25")]
    {
        let schedule = &overlapping(warmup, decay).stages[0].schedule;
        let rates: Vec<f64> = (0..20).map(|completed| schedule.learning_rate(completed)).collect();
        let steepest = 0.01 / 20.0_f64.min(schedule.decay_steps.min(warmup).max(1) as f64) + 1e-12;
        assert!(
            rates.windows(2).all(|pair| (pair[1] - pair[0]).abs() <= steepest),
            "{warmup} {decay}: {rates:?}"
        );
        // Up to the peak, then down: nothing else.
        let top = rates.iter().copied().fold(0.0, f64::max);
        let first = rates.iter().position(|rate| rate.to_bits() == top.to_bits()).unwrap();
        assert!(
            rates[..=first].is_sorted() && rates[first..].iter().rev().is_sorted(),
            "{warmup} {decay}: {rates:?}"
        );
    }
    assert_eq!(overlapping(15, "0.25").warnings, [""; 0], "they fit");
    assert_eq!(
        overlapping(0, "0.05").warnings,
        ["stage 1: the decay of 1 step out of 20 is too short: the learning rate never decays"]
    );
}

/// Bug report 16.
#[test]
fn a_stage_of_one_step_learns() {
    let stages = "stages=[{patch_size=4,share=0.9},{patch_size=1}]";
    for kind in ["cosine", "linear", "constant", "wsd"] {
        let kind = format!("schedule.kind={kind}");
        let plan = plan(&[
            "training.steps=10",
            &kind,
            stages,
            "schedule.warmup_steps=3",
            "optimizer.learning_rate=0.01",
        ]);
        let last = &plan.stages[1].schedule;
        assert_eq!(
            (last.steps, last.learning_rate(0).to_bits()),
            (1, 0.01_f64.to_bits()),
            "{kind}"
        );
        let words = "stage 2: no warm-up, because the stage has 1 step and a warm-up starts with \
                     a learning rate of 0";
        assert_eq!(plan.warnings.last().map(String::as_str), Some(words), "{kind}");
    }
    // Half of a step is rounded up to a step.
    assert!(
        plan(&["training.steps=10", stages, "schedule.warmup_share=0.5"]).stages[1]
            .schedule
            .learning_rate(0)
            > 0.0
    );
}

#[test]
fn fitting_changes_no_schedule_whose_parts_fit() {
    for kind in
        [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Constant, ScheduleKind::Wsd]
    {
        for steps in 2..30 {
            for warmup_steps in 0..steps {
                for decay_steps in 0..=steps - warmup_steps {
                    let schedule = Schedule {
                        kind,
                        peak: 0.8,
                        minimum: 0.0,
                        warmup_steps,
                        decay_steps,
                        steps,
                    };
                    assert_eq!(crate::plan::fit::fit(&schedule, 1, &mut Vec::new()), schedule);
                }
            }
        }
    }
}

#[test]
fn a_run_that_ends_with_patches_is_a_warning() {
    let expected = |patch_size| {
        format!(
            "the last stage trains on patches (K = {patch_size}): the result is unusable as a \
             token-level LM; add a stage with patch_size = 1"
        )
    };
    assert_eq!(warnings(&["training.steps=30", "stages=[{patch_size=4}]"]), [expected(4)]);
    assert_eq!(
        warnings(&["training.steps=30", "stages=[{patch_size=1,share=0.5},{patch_size=2}]"]),
        [expected(2)]
    );
}

#[test]
fn a_learning_rate_that_no_transformer_trains_with_is_a_warning() {
    let high = |key: &str, rate: &str| {
        format!(
            "{key} = {rate} is far above the usual range for AdamW (1e-4 to 1e-2): expect the \
             loss to diverge"
        )
    };
    assert_eq!(warnings(&["optimizer.learning_rate=3"]), [high("optimizer.learning_rate", "3.0")]);
    let own =
        "stages=[{patch_size=4,share=0.5,learning_rate=3.0},{patch_size=1,learning_rate=1e-3}]";
    assert_eq!(
        warnings(&[own, "optimizer.learning_rate=3"]),
        [high("stages[0].learning_rate", "3.0")],
        "no stage has the run's rate"
    );
    assert_eq!(warnings(&["optimizer.learning_rate=0.03"]), [""; 0]);
}

#[test]
fn a_run_ends_where_its_time_is_over() {
    let plan = plan(&["training.steps=30"]);
    let speeds = [40_960.0, 4096.0];
    // Twenty steps at ten a second, then ten at one a second.
    let reached = |seconds: u64| {
        plan.reached_in(Duration::from_secs(seconds), &speeds)
            .map(|reached| (reached.stage_idx, reached.step))
    };
    assert_eq!(
        [0, 1, 2, 7, 12].map(reached),
        [Some((0, 0)), Some((0, 10)), Some((1, 20)), Some((1, 25)), None]
    );
    let warning = plan.walltime_warning(Duration::from_secs(7), &speeds).unwrap();
    let expected = "training.max_walltime is shorter than the run: it would stop in stage 2 of 2 \
                    (K = 1), at about step 25 of 30; resume it to complete it";
    assert_eq!(warning, expected);
    assert_eq!(plan.walltime_warning(Duration::from_secs(13), &speeds), None);
    let speed = |median: f64| StageSpeed {
        median,
        slowest: median / 2.0,
        fastest: median * 2.0,
        repetitions: 3,
        is_stable: true,
    };
    let seconds = plan.seconds(&speeds.map(speed)).unwrap();
    assert_eq!(
        [seconds.least, seconds.expected, seconds.most].map(|seconds| seconds.round() as u64),
        [6, 12, 24]
    );
    assert_eq!(plan.seconds(&[]), None);
}

#[test]
fn relative_cost_is_the_sum_of_shares_over_patch_sizes() {
    let table = [
        (two_stages(4, "1/2"), 0.625),
        (two_stages(4, "2/3"), 0.5),
        (two_stages(4, "4/5"), 0.4),
        (two_stages(1, "1/2"), 1.0),
        (
            "stages=[{patch_size=8,share=0.25},{patch_size=4,share=0.25},{patch_size=2,share=0.\
             25},{patch_size=1}]"
                .into(),
            (0.125 + 0.25 + 0.5 + 1.0) / 4.0,
        ),
    ];
    for (stages, expected) in table {
        let cost = plan(&["training.steps=6000", &stages]).relative_cost();
        assert!((cost - expected).abs() < 1e-12, "{stages}: {cost}, not {expected}");
    }
}

fn shape_of(preset: &str) -> ModelShape {
    let config = config(&[&format!("model.preset={preset}"), "model.max_position_embeddings=2048"]);
    ModelShape::new(&config.model, 32_000)
}

#[test]
fn the_networks_of_the_paper_have_its_numbers_of_parameters() {
    let table = [
        ("paper-370m", 369_148_928),
        ("paper-780m", 781_395_456),
        ("paper-1.3b", 1_345_423_360),
        ("paper-2.7b", 2_693_696_000),
    ];
    for (preset, expected) in table {
        assert_eq!(shape_of(preset).num_parameters(), expected, "{preset}");
    }
    let tables = 2 * 32_000 * 1024;
    let norms = 49 * 1024;
    let shape = shape_of("paper-370m");
    assert_eq!(shape.num_matmul_parameters(), 369_148_928 - norms - tables / 2);
    assert_eq!(
        ModelShape { tie_word_embeddings: true, ..shape.clone() }.num_parameters(),
        369_148_928 - tables / 2
    );
    // With 4 instead of 16 key and value heads, two matrices per layer shrink to a quarter.
    assert_eq!(
        ModelShape { num_key_value_heads: 4, ..shape }.num_parameters(),
        369_148_928 - 24 * 2 * 1024 * 1024 * 3 / 4
    );
}

#[test]
fn operations_and_bytes_follow_the_stated_convention() {
    let shape = shape_of("paper-370m");
    let matrices = 6.0 * shape.num_matmul_parameters() as f64;
    assert!(
        (shape.flops_per_position(2048) - (matrices + 12.0 * 24.0 * 1024.0 * 2048.0)).abs() < 1.0
    );
    let memory = shape.memory(4, 2048, false);
    assert_eq!((memory.state, memory.checkpoint), (16 * 369_148_928, 12 * 369_148_928));
    let rows = 4 * 2048_u64;
    let of_layer = rows * (8 * 1024 + 3 * 2752);
    let work = rows * 8 * 1024;
    let head = 1024 * 32_000 + 2 * rows * 1024;
    assert!(work > head);
    assert_eq!(memory.activations, 4 * (24 * of_layer + work));
    assert_eq!(
        shape.memory(4, 2048, true).activations,
        4 * (24 * rows * 1024 + of_layer + work),
        "each layer keeps its input"
    );
    let longer =
        |context_length| shape.memory(8192 / context_length, context_length, false).activations;
    assert_eq!(longer(256), longer(2048), "nothing grows with the square of the sequence");
    let plan = plan(&["training.steps=30"]);
    let flops = 1024.0 * plan.model.flops_per_position(64);
    assert!((plan.cost.flops - (20.0 * flops + 10.0 * 4.0 * flops)).abs() < 1.0);
}

#[test]
fn cadences_are_shares_of_the_run_unless_they_are_given() {
    let auto = [
        "evaluation.every_steps=auto",
        "activations.every_steps=auto",
        "samples.every_steps=auto",
        "checkpoint.every_steps=auto",
    ];
    let of_run = |steps: &str| plan(&[&auto[..], &[steps]].concat()).cadences;
    let long = of_run("training.steps=1000");
    assert_eq!(
        (long.report, long.evaluation, long.activations, long.samples),
        (1, Some(50), Some(50), Some(100))
    );
    assert_eq!(
        of_run("training.steps=3").evaluation,
        Some(1),
        "a short run does not miss its own cadence"
    );
    let given =
        plan(&["evaluation.every_steps=7", "samples.every_steps=never", "report.every_steps=3"])
            .cadences;
    assert_eq!((given.report, given.evaluation, given.samples), (3, Some(7), None));
    let on_gpu = Corpus { device_is_cpu: false, ..corpus(1_000_000) };
    assert_eq!(RunPlan::new(&config(&[]), &on_gpu).unwrap().cadences.report, 10);
}

#[test]
fn the_best_checkpoint_is_looked_for_among_evaluated_steps() {
    let with = |sets: &[&str]| {
        plan(&[&["training.steps=20000", "checkpoint.every_steps=auto"], sets].concat())
    };
    for evaluation in [100, 300, 1000] {
        let plan = with(&[&format!("evaluation.every_steps={evaluation}")]);
        assert_eq!(plan.cadences.checkpoint.unwrap() % evaluation, 0);
        assert_eq!(plan.notes, Vec::<String>::new());
    }
    let given = with(&["checkpoint.every_steps=200", "evaluation.every_steps=300"]);
    assert_eq!(given.cadences.checkpoint, Some(200));
    let note = "checkpoint.keep_best compares only checkpoints of evaluated steps: it saves every \
                200 steps and evaluates every 300";
    assert_eq!(given.notes, [note]);
    // Who evaluates rarely does not save rarely.
    let rare = with(&["evaluation.every_steps=20000"]).cadences.checkpoint;
    assert_eq!(rare, with(&["checkpoint.keep_best=false"]).cadences.checkpoint);
    let off = with(&[
        "checkpoint.every_steps=200",
        "evaluation.every_steps=300",
        "checkpoint.keep_best=false",
    ]);
    assert_eq!(off.notes, Vec::<String>::new());
}

#[test]
fn a_short_run_saves_as_often_as_half_a_percent_of_its_time_allows() {
    let of_run =
        |steps: &str| plan(&["checkpoint.every_steps=auto", "checkpoint.keep_best=false", steps]);
    let (short, medium, long) =
        (of_run("training.steps=50"), of_run("training.steps=500"), of_run("training.steps=1M"));
    assert_eq!(short.cadences.checkpoint, Some(50), "not even one more than at the ends of stages");
    assert_eq!(long.cadences.checkpoint, Some(100_000), "never more than ten");
    // A guess: at 150 GFLOP/s and 400 MB/s, with 50 ms for the disk to answer.
    let seconds = medium.cost.flops / 1.5e11;
    let of_checkpoint = 0.05 + 12.0 * medium.num_parameters as f64 / 400e6;
    let saves = (medium.steps / medium.cadences.checkpoint.unwrap()) as f64;
    assert!(
        (1.0..10.0).contains(&saves)
            && saves * of_checkpoint <= 0.005 * seconds
            && (saves + 1.0) * of_checkpoint > 0.005 * seconds,
        "{saves} in {seconds} s"
    );
    let on_gpu = RunPlan::new(
        &config(&["checkpoint.every_steps=auto", "training.steps=500"]),
        &Corpus { device_is_cpu: false, ..corpus(1 << 40) },
    )
    .unwrap();
    assert_eq!(on_gpu.cadences.checkpoint, Some(500), "a GPU is faster, a disk is not");
}

#[test]
fn shares_that_are_all_given_never_change_the_budget() {
    for (shares, steps) in [
        (["0.5", "0.5"].as_slice(), 5),
        (&["0.5", "0.25", "0.25"], 10),
        (&["0.3", "0.3", "0.4"], 7),
    ] {
        let stages: Vec<String> =
            shares.iter().map(|share| format!("{{patch_size=1, share={share}}}")).collect();
        let plan =
            plan(&[&format!("stages=[{}]", stages.join(", ")), &format!("training.steps={steps}")]);
        assert_eq!(plan.steps, steps, "{shares:?}");
    }
}

/// Plan and need of a configuration.
fn need(sets: &[&str]) -> (RunPlan, RunConfig, MemoryNeed) {
    let config = config(sets);
    let plan = RunPlan::new(&config, &corpus(1 << 40)).unwrap();
    let need = MemoryNeed::new(&plan, &config);
    (plan, config, need)
}

/// Bytes of what a need consists of: the program, and tensors with gaps between them.
fn with_gaps(tensors: u64) -> f64 {
    48e6 + 1.06 * tensors as f64
}

#[test]
fn training_needs_weights_moments_gradients_and_a_micro_batch() {
    let (plan, _, alone) = need(&["training.micro_batch_size=4"]);
    let parameters = plan.num_parameters;
    let activations = plan.model.memory(4, 64, false).activations;
    // At K = 1 a step has 16 micro-batches: their gradients are summed up while each is computed.
    let close = |found: u64, expected: f64| {
        assert!((found as f64 - expected).abs() < 2.0, "{found} instead of {expected}");
    };
    close(alone.expected, with_gaps(parameters * 4 * (3 + 1) + activations));
    close(alone.least, 0.8 * with_gaps(parameters * 4 * (3 + 1) + activations));
    // One micro-batch for the whole step: its gradients come while its activations go.
    let (plan, _, whole) = need(&["training.micro_batch_size=64"]);
    let activations = plan.model.memory(64, 64, false).activations;
    assert!(whole.expected as f64 >= with_gaps(plan.num_parameters * 12 + activations));
    assert!((whole.expected as f64) < with_gaps(plan.num_parameters * 16 + activations));
    let (_, _, recomputed) = need(&["training.micro_batch_size=64", "training.recompute=true"]);
    assert!(recomputed.expected < whole.expected);
}

#[test]
fn evaluation_counts_too() {
    let sets = [
        "training.context_length=256",
        "stages=[{patch_size=1,context_length=2}]",
        "training.micro_batch_size=512",
        "evaluation.max_tokens=1M",
    ];
    let (plan, _, with_evaluation) = need(&sets);
    let (_, _, shorter) = need(&[
        "training.context_length=256",
        "stages=[{patch_size=1,context_length=2}]",
        "training.micro_batch_size=512",
        "evaluation.max_tokens=1k",
    ]);
    // 512 sequences of 256 positions, with one layer's input at a time.
    let inputs = 2 * 4 * (512 * 256 * plan.model.hidden_size) as u64;
    assert!(with_evaluation.expected > shorter.expected + inputs);
}

#[test]
fn the_largest_micro_batch_that_fits_is_found() {
    let (plan, config, full) = need(&["training.micro_batch_size=64"]);
    let largest = |available: u64| MemoryNeed::largest_micro_batch(&plan, &config, available);
    assert_eq!(largest(u64::MAX), Some(63), "below what is configured");
    assert_eq!(largest(0), None);
    let found = largest(full.expected / 2).unwrap();
    assert!((1..64).contains(&found));
    assert!(MemoryNeed::with_micro_batches(&plan, &config, found).expected <= full.expected / 2);
    assert!(MemoryNeed::with_micro_batches(&plan, &config, found + 1).expected > full.expected / 2);
}

#[test]
fn absurd_sizes_are_computed_without_overflow() {
    let ordinary = config(&[]);
    let shape = ModelShape::new(&ordinary.model, 32_000);
    let max = usize::MAX;
    let table = [
        ModelShape { hidden_size: 1 << 40, ..shape.clone() },
        ModelShape { intermediate_size: 1 << 40, ..shape.clone() },
        ModelShape { num_hidden_layers: 1_000_000_000, hidden_size: 1 << 40, ..shape.clone() },
        ModelShape { vocab_size: 1_000_000_000_000, ..shape.clone() },
        ModelShape { vocab_size: max, hidden_size: max, ..shape.clone() },
        ModelShape { num_attention_heads: max, num_key_value_heads: max, ..shape.clone() },
        ModelShape { num_attention_heads: 0, ..shape.clone() },
        ModelShape {
            vocab_size: max,
            hidden_size: max,
            intermediate_size: max,
            num_hidden_layers: max,
            ..shape.clone()
        },
    ];
    for absurd in table {
        assert!(absurd.num_parameters() > 1_000_000 / 8, "{absurd:?}");
        assert!(absurd.num_matmul_parameters() <= absurd.num_parameters());
        for (sequences, context_length) in [(1, 1), (max, max), (0, 0), (1 << 40, 1 << 40)] {
            let memory = absurd.memory(sequences, context_length, false);
            assert!(
                memory.state >= memory.checkpoint && memory.checkpoint >= absurd.num_parameters()
            );
            assert!(absurd.flops_per_position(context_length).is_finite());
        }
        let mut plan = plan(&[]);
        plan.model = absurd;
        let need = MemoryNeed::new(&plan, &ordinary);
        assert!(need.least > 0 && need.expected >= need.least, "{need:?}");
        let _ = MemoryNeed::largest_micro_batch(&plan, &ordinary, 1 << 40);
    }
    let vocabulary = Corpus { tokenizer_vocab_size: usize::MAX, ..corpus(1 << 40) };
    assert_eq!(RunPlan::new(&ordinary, &vocabulary).unwrap().model.vocab_size, usize::MAX);
}

#[test]
fn stages_of_one_shape_are_measured_once() {
    let stages = "stages=[{patch_size=4,share=0.1},{patch_size=2,share=0.1},{patch_size=4,share=0.\
                  1,learning_rate=0.5},{patch_size=2,share=0.1,context_length=32},{patch_size=1,\
                  share=0.3},{patch_size=1,micro_batch_size=2}]";
    assert_eq!(plan(&["training.steps=100", stages]).first_stages_alike(), [0, 1, 0, 3, 4, 5]);
    let many = format!("stages=[{}]", vec!["{patch_size=4,share=0.001}"; 1000].join(","));
    let plan = plan(&["training.steps=10k", &many]);
    assert_eq!((plan.stages.len(), plan.steps), (1000, 10_000));
    assert!(plan.first_stages_alike().iter().all(|first| *first == 0));
}

#[test]
fn evaluations_take_less_than_a_percent_of_the_run_unless_it_is_very_short_or_very_long() {
    let tokens = |sets: &[&str]| {
        let sets: Vec<&str> = ["evaluation.every_steps=auto", "evaluation.max_tokens=auto"]
            .iter()
            .chain(sets)
            .copied()
            .collect();
        let plan = plan(&sets);
        let evaluations = plan.steps / plan.cadences.evaluation.unwrap() + plan.stages.len() as u64;
        (
            plan.evaluation_tokens,
            (plan.evaluation_tokens * evaluations) as f64 / 3.0 / plan.cost.positions as f64,
        )
    };
    let (of_medium, share) = tokens(&["training.tokens=100M"]);
    assert!((0.0065..=0.007).contains(&share), "{of_medium} tokens are {share} of the work");
    assert_eq!(tokens(&["training.tokens=100k"]).0, 8 * 64);
    assert_eq!(tokens(&["training.tokens=100B"]).0, 256_000);
    assert_eq!(tokens(&["training.tokens=100k", "evaluation.max_tokens=5k"]).0, 5000);
}
