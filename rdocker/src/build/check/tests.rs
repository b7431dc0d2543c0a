//! A good and a bad Dockerfile for each rule.

use super::*;
use crate::dockerfile::parse;

fn findings(text: &str, given: &[(&str, &str)]) -> Findings {
    let file = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let given = given
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let ignore = Ignore::parse("ignored\n*.md\n").unwrap();
    let image = |name: &str| {
        let mut config = ImageConfig {
            os: "linux".into(),
            architecture: "arm64".into(),
            ..ImageConfig::default()
        };
        config.config.env = vec!["LANG=C".into()];
        (name == "here").then_some(config)
    };
    check(&Subject {
        source: text.as_bytes(),
        file: &file,
        arguments: &given,
        platform: &"linux/arm64".parse().unwrap(),
        needed: &vec![true; file.stages.len()],
        ignore: &ignore,
        image: &image,
    })
    .unwrap()
}

fn told(text: &str) -> Vec<String> {
    let one = |warning: &Warning| {
        let (first, last) = warning.lines;
        format!("{} {first}-{last} {}", warning.rule.name(), warning.message)
    };
    findings(text, &[]).warnings.iter().map(one).collect()
}

/// A Dockerfile with what is wrong in it, and one without.
const PAIRS: &[(&str, &str, &str)] = &[
    (
        "FROM here AS Base",
        "StageNameCasing 1-1 Stage name 'Base' should be lowercase",
        "FROM here AS base",
    ),
    (
        "FROM here as base",
        "FromAsCasing 1-1 'as' and 'FROM' keywords' casing do not match",
        "from here as base",
    ),
    (
        "FROM here\nRUN a \\\n\n  b\n",
        "NoEmptyContinuation 3-3 Empty continuation line",
        "FROM here\nRUN a \\\n# c\n  b\n",
    ),
    (
        "FROM here\nrun a\nRUN b",
        "ConsistentInstructionCasing 2-2 Command 'run' should match the case of the command \
         majority (uppercase)",
        "from here\nrun a",
    ),
    (
        "FROM here AS a\nFROM here AS a",
        "DuplicateStageName 2-2 Duplicate stage name \"a\", stage names should be unique",
        "FROM here AS a\nFROM here AS b",
    ),
    (
        "FROM here AS scratch",
        "ReservedStageName 1-1 Stage name should not use the same name as reserved stage \
         \"scratch\"",
        "FROM scratch AS here",
    ),
    (
        "FROM here\nCMD a b",
        "JSONArgsRecommended 2-2 JSON arguments recommended for CMD to prevent unintended \
         behavior related to OS signals",
        "FROM here\nSHELL [\"/bin/sh\", \"-c\"]\nCMD a b",
    ),
    (
        "FROM here\nMAINTAINER me",
        "MaintainerDeprecated 2-2 Maintainer instruction is deprecated in favor of using label",
        "FROM here\nLABEL maintainer=me",
    ),
    (
        "ARG VARIANT=1\nFROM here$VARAINT",
        "UndefinedArgInFrom 2-2 FROM argument 'VARAINT' is not declared (did you mean VARIANT?)",
        "ARG VARIANT=\nFROM here$VARIANT",
    ),
    (
        "FROM here\nWORKDIR a/b",
        "WorkdirRelativePath 2-2 Relative workdir \"a/b\" can have unexpected results if the \
         base image changes",
        "FROM here\nARG D=/a\nWORKDIR $D\nWORKDIR b",
    ),
    (
        "FROM here\nENV PATH=$PAHT:/app",
        "UndefinedVar 2-2 Usage of undefined variable '$PAHT' (did you mean $PATH?)",
        "FROM here\nARG D\nENV A=$LANG B=${NO:-x} C=$D\nRUN echo $SHELLS\nCMD [\"$x\"]",
    ),
    (
        "FROM here\nCOPY <<EOF /x\n$nosuch\nEOF\n",
        "UndefinedVar 2-4 Usage of undefined variable '$nosuch'",
        "FROM here\nCOPY <<'EOF' /x\n$nosuch\nEOF\n",
    ),
    (
        "FROM here\nCMD [\"a\"]\nCMD [\"b\"]",
        "MultipleInstructionsDisallowed 2-2 Multiple CMD instructions should not be used in \
         the same stage because only the last one will be used",
        "FROM here AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]",
    ),
    (
        "FROM here\nENV A b",
        "LegacyKeyValueFormat 2-2 \"ENV key=value\" should be used instead of legacy \"ENV key \
         value\" format",
        "FROM here\nENV A=b",
    ),
    (
        "FROM --platform=$TARGETPLATFORM here",
        "RedundantTargetPlatform 1-1 Setting platform to predefined $TARGETPLATFORM in FROM is \
         redundant as this is the default behavior",
        "FROM --platform=$BUILDPLATFORM there",
    ),
    (
        "FROM here\nARG GITHUB_TOKEN",
        "SecretsUsedInArgOrEnv 2-2 Do not use ARG or ENV instructions for sensitive data (ARG \
         \"GITHUB_TOKEN\")",
        "FROM here\nARG TOKENIZER\nENV PUBLIC_KEY=x KEY_VERSION=1",
    ),
    (
        "ARG TAG\nFROM here:$TAG",
        "InvalidDefaultArgInFrom 2-2 Default value for ARG here:$TAG results in empty or \
         invalid base image name",
        "ARG TAG=1\nFROM here:$TAG",
    ),
    (
        "FROM --platform=linux/arm64 here AS x",
        "FromPlatformFlagConstDisallowed 1-1 FROM --platform flag should not use constant \
         value \"linux/arm64\"",
        "FROM --platform=linux/arm64 here AS x-arm64",
    ),
    (
        "FROM here\nCOPY ignored /x",
        "CopyIgnoredFile 2-2 Attempting to Copy file \"ignored\" that is excluded by \
         .dockerignore",
        "FROM here\nCOPY --from=here ignored other /x",
    ),
    (
        "FROM here\nEXPOSE 80/TCP",
        "ExposeProtoCasing 2-2 Defined protocol '80/TCP' in EXPOSE instruction should be \
         lowercase",
        "FROM here\nEXPOSE 80/tcp",
    ),
    (
        "FROM here\nEXPOSE 127.0.0.1:80:80",
        "ExposeInvalidFormat 2-2 EXPOSE instruction should not define an IP address or \
         host-port mapping, found '127.0.0.1:80:80'",
        "FROM here\nEXPOSE 80-90",
    ),
    (
        "FROM --platform=${A:-linux/amd64} here",
        "InvalidBaseImagePlatform 1-1 Base image here was pulled with platform \
         \"linux/arm64\", expected \"linux/amd64\" for current build",
        "FROM --platform=${A:-linux/arm64} here",
    ),
    (
        "# check=experimental=all\n# words\nFROM here AS a",
        "InvalidDefinitionDescription 3-3 Comment for FROM should follow the format: `# a \
         <description>`",
        "# check=experimental=all\n# a stage\nFROM here AS a",
    ),
];

#[test]
fn each_rule_finds_what_it_is_for_and_nothing_else() {
    for (bad, want, good) in PAIRS {
        assert_eq!(told(bad), [*want], "{bad}");
        assert_eq!(told(good), [""; 0], "{good}");
    }
}

#[test]
fn rules_are_skipped_by_the_file_by_a_comment_and_by_an_argument() {
    let body = "FROM here\nMAINTAINER me\nENV A b\n";
    assert_eq!(told(body).len(), 2);
    let skip = |what: &str| told(&format!("# check=skip={what}\n{body}")).len();
    assert_eq!((skip("all"), skip("LegacyKeyValueFormat")), (0, 1));
    assert_eq!(
        skip("MaintainerDeprecated, LegacyKeyValueFormat;error=true"),
        0
    );
    let one = "FROM here\n# check=skip=all\nMAINTAINER me\nENV A b\n";
    assert_eq!(told(one).len(), 1);
    let found = findings(body, &[(CHECK, "skip=LegacyKeyValueFormat;error=true")]);
    assert_eq!(
        found.error().as_deref(),
        Some("lint violation found for rules: MaintainerDeprecated")
    );
    assert_eq!(findings(body, &[]).error(), None);
    for wrong in ["x", "skipp=all", "error=maybe"] {
        assert!(Config::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn of_an_image_that_is_not_here_nothing_is_said() {
    assert_eq!(told("FROM there\nENV A=$B\nWORKDIR $C"), [""; 0]);
}

#[test]
fn pages_are_named_as_docker_names_them() {
    let page = |rule: Rule| rule.url().unwrap();
    let base = "https://docs.docker.com/go/dockerfile/rule/";
    assert_eq!(
        page(Rule::JSONArgsRecommended),
        format!("{base}json-args-recommended/")
    );
    assert_eq!(page(Rule::FromAsCasing), format!("{base}from-as-casing/"));
}
