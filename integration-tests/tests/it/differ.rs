//! Random catalogs, values, cuts and queries against engines that are not ours.

use integration_tests::differ::{
    Rounds, differences,
    features::{Features, KNOWN_WRONG},
};

/// The same every time; `just differ` tries others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_other_engines() {
    let rounds =
        Rounds { cases: 2000, seed: 0, workers: 2, faults: 3, features: Features::without(KNOWN_WRONG).unwrap() };
    let tally = rounds.run(|text| println!("{text}")).await.unwrap();
    println!("{}", tally.summary());
    assert!(tally.wrong.is_empty(), "{} plans have wrong answers", tally.wrong.len());
    assert!(tally.is_telling(), "too little was compared to say anything");
}

/// A difference that is gone is no reason any more to go around it.
#[tokio::test(flavor = "multi_thread")]
async fn engines_differ_where_it_is_said() {
    assert_eq!(differences::check().await.unwrap(), Vec::<String>::new());
}
