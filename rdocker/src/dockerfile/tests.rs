//! Tables of the language, good and bad, and a search for panics.

use super::*;

fn only(text: &str) -> Instruction {
    let file = parse(format!("FROM x\n{text}").as_bytes());
    let file = file.unwrap_or_else(|error| panic!("{text}: {error}"));
    file.stages[0].steps[0].instruction.clone()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn every_instruction_is_read() {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let shell = |text: &str| Command::Shell(text.to_owned());
    let cases = [
        (
            "cmd [\"a\", \"b\"]",
            Instruction::Cmd(Command::Exec(strings(&["a", "b"]))),
        ),
        ("CMD ['a']", Instruction::Cmd(shell("['a']"))),
        ("CMD", Instruction::Cmd(shell(""))),
        ("ENTRYPOINT x  y", Instruction::Entrypoint(shell("x  y"))),
        (
            "ENV A=1 B=\"x y\"",
            Instruction::Env(vec![pair("A", "1"), pair("B", "\"x y\"")]),
        ),
        (
            "ENV OLD some words",
            Instruction::Env(vec![pair("OLD", "some words")]),
        ),
        ("LABEL a.b=c", Instruction::Label(vec![pair("a.b", "c")])),
        (
            "EXPOSE 80 $P/udp",
            Instruction::Expose(strings(&["80", "$P/udp"])),
        ),
        ("VOLUME /a /b", Instruction::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Instruction::Volume(strings(&["/a b"]))),
        ("USER a:b", Instruction::User("a:b".into())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
        ("STOPSIGNAL 9", Instruction::Stopsignal("9".into())),
        (
            "SHELL [\"/bin/bash\",\"-c\"]",
            Instruction::Shell(strings(&["/bin/bash", "-c"])),
        ),
        ("ONBUILD RUN x", Instruction::Onbuild("RUN x".into())),
        (
            "MAINTAINER Barry Song<x@y",
            Instruction::Maintainer("Barry Song<x@y".into()),
        ),
        (
            "ARG A B=2 C=",
            Instruction::Arg(vec![
                ("A".into(), None),
                ("B".into(), Some("2".into())),
                ("C".into(), Some(String::new())),
            ]),
        ),
    ];
    for (text, want) in cases {
        assert_eq!(only(text), want, "{text}");
    }
}

#[test]
fn transfers_and_runs_keep_their_flags() {
    let Instruction::Copy(copy) = only(
        "COPY --from=a --chown=1:2 --chmod=755 --link --parents --exclude=*.o --exclude=b a b /c/",
    ) else {
        panic!()
    };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref()),
        (Some("a"), Some("1:2"))
    );
    assert_eq!(
        (copy.chmod.as_deref(), copy.link, copy.parents),
        (Some("755"), true, true)
    );
    assert_eq!(
        (copy.exclude, copy.sources),
        (strings(&["*.o", "b"]), strings(&["a", "b"]))
    );
    let Instruction::Add(add) = only("ADD --checksum=sha256:0 --keep-git-dir --unpack=false u /")
    else {
        panic!()
    };
    assert_eq!((add.unpack, add.keep_git_dir), (Some(false), true));
    let Instruction::Copy(copy) = only("COPY <<a <<'b' c /d\n1\na\n2\nb") else {
        panic!()
    };
    assert_eq!((copy.sources, copy.heredocs.len()), (strings(&["c"]), 2));
    let Instruction::Run(run) =
        only("RUN --mount=type=tmpfs,target=/t --mount=type=ssh --network=none x")
    else {
        panic!()
    };
    assert_eq!(
        (run.mounts.len(), run.network.as_deref()),
        (2, Some("none"))
    );
    let Instruction::Healthcheck(check) =
        only("HEALTHCHECK --interval=1m30s --timeout=0.5s --retries=2 CMD curl -f x")
    else {
        panic!()
    };
    assert_eq!(check.0.test, ["CMD-SHELL", "curl -f x"]);
    assert_eq!(
        (check.0.interval, check.0.timeout),
        (90_000_000_000, 500_000_000)
    );
}

#[test]
fn stages_begin_at_from() {
    let text =
        "ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V AS Build\nRUN x\nfrom build as t\nCMD y";
    let file = parse(text.as_bytes()).unwrap();
    assert_eq!(file.arguments.len(), 1);
    let [a, b] = &file.stages[..] else { panic!() };
    assert_eq!(
        (a.base.as_str(), a.name.as_deref()),
        ("a:$V", Some("build"))
    );
    assert_eq!(a.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!((b.base.as_str(), b.line, b.steps.len()), ("build", 4, 1));
}

/// Each text is refused with these words, and with its line.
fn refused(cases: &[(&str, &str)]) {
    for (text, want) in cases {
        let error = parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(want), "{text:?}: {error}");
        assert!(
            error.starts_with("dockerfile parse error on line "),
            "{error}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_file_a_stage_or_a_flag_is_told_with_its_line() {
    refused(&[
        ("", "line 1: file with no instructions"),
        ("# only\n", "line 1: file with no instructions"),
        ("RUN x", "line 1: no build stage in current context"),
        ("ARG a", "line 1: no build stage in current context"),
        (
            "FROM",
            "line 1: FROM requires either one or three arguments",
        ),
        (
            "FROM a b",
            "line 1: FROM requires either one or three arguments",
        ),
        (
            "FROM a AS 1x",
            "line 1: invalid name for build stage: \"1x\"",
        ),
        (
            "FROM --platfrom=x a",
            "unknown flag: --platfrom (did you mean platform?)",
        ),
        ("FROM a\n~", "line 2: unknown instruction: ~"),
        (
            "FROM a\n\nRUNN x",
            "line 3: unknown instruction: RUNN (did you mean RUN?)",
        ),
        (
            "FORM a",
            "line 1: unknown instruction: FORM (did you mean FROM?)",
        ),
        ("FROM a\nRUN", "line 2: RUN requires at least one argument"),
        ("FROM a\nRUN --network=x y", "unsupported network mode"),
        ("FROM a\nCOPY x", "but only one was provided"),
        (
            "FROM a\nCOPY --chow=1 x y",
            "unknown flag: --chow (did you mean chown?)",
        ),
        ("FROM a\nCOPY --from x y", "missing a value on flag: from"),
    ]);
}

#[test]
fn what_is_wrong_with_an_argument_is_told_with_its_line() {
    refused(&[
        ("FROM a\nENV", "ENV requires at least one argument"),
        ("FROM a\nENV a", "ENV must have two arguments"),
        ("FROM a\nENV a=1 b", "can't find = in \"b\""),
        ("FROM a\nENV =1", "ENV names can not be blank"),
        ("FROM a\nLABEL", "LABEL requires at least one argument"),
        (
            "FROM a\nSHELL sh",
            "SHELL requires the arguments to be in JSON form",
        ),
        ("FROM a\nUSER", "USER requires exactly one argument"),
        ("FROM a\nUSER a b", "USER requires exactly one argument"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        (
            "FROM a\nONBUILD FROM b",
            "FROM isn't allowed as an ONBUILD trigger",
        ),
        ("FROM a\nONBUILD FOO b", "line 2: unknown instruction: FOO"),
        (
            "FROM a\nHEALTHCHECK x",
            "Unknown type \"X\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM a\nHEALTHCHECK CMD",
            "Missing command after HEALTHCHECK CMD",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1 CMD x",
            "interval \"1\": want a duration",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD x",
            "cannot be less than 1ms",
        ),
        (
            "FROM a\nVOLUME [\"\"]",
            "VOLUME specified can not be an empty string",
        ),
        ("FROM a\nRUN <<EOF\nx", "line 2: unterminated heredoc"),
    ]);
}

/// Pieces of the language in random order, whole and cut anywhere: an answer, and no panic.
#[test]
fn no_input_makes_the_parser_panic() {
    const PIECES: &[&str] = &[
        "FROM",
        " ",
        "\n",
        "\\",
        "\\\n",
        "RUN",
        "COPY",
        "--from=",
        "--mount=type=",
        "<<EOF",
        "<<-",
        "EOF\n",
        "$",
        "${",
        "}",
        ":-",
        "'",
        "\"",
        "[",
        "\"a\"]",
        "ONBUILD",
        "ENV",
        "=",
        "#",
        "`",
        "# escape=`\n",
        "HEALTHCHECK",
        "--interval=",
        "1h",
        "\t",
        "\r\n",
        "é",
        "\u{feff}",
        "AS",
        "\0",
        "//",
        "%%",
        "*",
        "?",
        "1<<x",
        "ARG",
        "LABEL",
        "SHELL [",
        "]",
        ",",
        "--",
        "---",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let lookup = |name: &str| name.len().is_multiple_of(2).then(|| "a*b c".to_owned());
    for _ in 0..6_000 {
        let mut text = "FROM x\n".to_owned();
        for _ in 0..random(24) {
            text.push_str(PIECES[random(PIECES.len())]);
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(bytes.len() - random(bytes.len().min(4)));
        if random(16) == 0 {
            let at = random(bytes.len());
            bytes[at] ^= 0x80;
        }
        drop(parse(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let expand = word::Expand {
            escape: '\\',
            lookup: &lookup,
        };
        drop((expand.word(&text), expand.words(&text), expand.text(&text)));
        drop(instruction(&text, '`'));
    }
}
