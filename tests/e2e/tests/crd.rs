//! `understudy crd` prints what is committed.

use understudy_e2e::child::understudy_once;

#[tokio::test]
async fn the_printed_definition_is_the_committed_one() {
    let printed = understudy_once(["crd"]).await;
    printed.expect_code(0);
    let committed = include_str!("../../../crds/understudy.dev_shadowexperiments.yaml");
    assert_eq!(printed.stdout.trim_end(), committed.trim_end());
    assert_eq!(printed.stderr, "");
}
