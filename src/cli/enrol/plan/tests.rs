use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_name_without_its_number_is_the_subject() {
    for (stem, subject) in [
        ("anna_1", "anna"),
        ("anna_012", "anna"),
        ("anna7", "anna"),
        ("anna", "anna"),
        ("8842", "8842"),
        ("8842_1", "8842"),
        ("carrier-7_a_2", "carrier-7_a"),
        ("_1", "_"),
        ("anna_", "anna_"),
    ] {
        assert_eq!(subject_of(stem), subject, "{stem}");
    }
}

/// A folder with these files, and what is in each: its own path.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn found(plan: &Plan, root: &Path) -> Vec<(String, String)> {
    let of =
        |item: &Item| (item.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), item.subject.to_string());
    plan.items.iter().map(of).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(path, subject)| (path.to_string(), subject.to_string())).collect()
}

#[test]
fn folders_and_names_are_subjects() {
    let files = ["anna_1.png", "anna_2.JPG", "notes.txt", "bella/x.png", "bella/deeper/y.png", "a b_1.png"];
    let dir = folder(&files);
    let root = dir.path();
    let of = |from| {
        let plan = Plan::of(root, from).unwrap();
        (found(&plan, root), plan.refused.len())
    };
    let by_place = pairs(&[("anna_1.png", "anna"), ("anna_2.JPG", "anna"), ("bella/x.png", "bella")]);
    assert_eq!(of(None), (by_place, 1));
    let by_name = pairs(&[("anna_1.png", "anna"), ("anna_2.JPG", "anna"), ("bella/x.png", "x")]);
    assert_eq!(of(Some(SubjectFrom::Name)), (by_name, 1));
    let by_stem = pairs(&[("anna_1.png", "anna_1"), ("anna_2.JPG", "anna_2"), ("bella/x.png", "x")]);
    assert_eq!(of(Some(SubjectFrom::Stem)), (by_stem, 1));
    assert!(Plan::of(&root.join("none"), None).unwrap_err().to_string().contains("none"));
}

#[test]
fn digits_that_may_be_the_id_are_asked_about() {
    // What three people's files, made by three systems, are named like.
    for names in [
        ["F000003.png", "F000005.png", "F000007.png"],
        ["emp-1001.png", "emp-1002.png", "emp-1003.png"],
        ["emp_1001.png", "emp_1002.png", "emp_1003.png"],
        ["6b1f4a52-0d7f-4f0e-9a59-5f3f6f0c8a11.png", "anna.png", "bella.png"],
        // With a zero before it, or of several digits, a number is no photo's of a few.
        ["emp_01.png", "emp_02.png", "emp_03.png"],
        ["anna_01.png", "anna_02.png", "anna_0.png"],
        ["anna_10.png", "anna_11.png", "anna_12.png"],
        // What stands before it names nobody.
        ["IMG_1.png", "IMG_2.png", "IMG_3.png"],
        ["emp_1.png", "emp_2.png", "emp_3.png"],
    ] {
        let dir = folder(&names);
        let refused = Plan::of(dir.path(), None).unwrap_err().to_string();
        let stem = names[0].strip_suffix(".png").unwrap();
        let shortened = subject_of(stem);
        assert!(
            refused.contains("--subject-from") && refused.contains(&format!("subject {shortened} with")),
            "{refused}"
        );
        assert!(refused.contains(&format!("{stem} with --subject-from stem")), "{refused}");
        let plan = Plan::of(dir.path(), Some(SubjectFrom::Stem)).unwrap();
        let subjects: HashSet<_> = plan.items.iter().map(|item| item.subject.to_string()).collect();
        assert_eq!(subjects.len(), 3, "three people stay three");
    }
    let dir = folder(&["1.png", "2.png", "3.png", "notes.txt"]);
    let refused = Plan::of(dir.path(), None).unwrap_err().to_string();
    assert!(refused.contains("1.png: subject 1 with --subject-from stem, or a photo of whom a folder"), "{refused}");
    assert!(refused.contains("SUBJECT/1.png") && !refused.contains("notes"), "{refused}");
    // The one form that says that it numbers photos.
    let dir = folder(&["amy_1.png", "amy_2.png", "amy_9.png"]);
    let all = pairs(&[("amy_1.png", "amy"), ("amy_2.png", "amy"), ("amy_9.png", "amy")]);
    assert_eq!(found(&Plan::of(dir.path(), None).unwrap(), dir.path()), all);
    let many: Vec<String> = (100..200).map(|n| format!("p{n}.png")).collect();
    let dir = folder(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = Plan::of(dir.path(), None).unwrap_err().to_string();
    assert!(refused.contains("and 95 more") && refused.len() < 2000, "{refused}");
    // In a folder of its own a subject's photos may be named as they like.
    let dir = folder(&["emp-1001/F000003.png", "emp-1001/F000004.png"]);
    let expected = pairs(&[("emp-1001/F000003.png", "emp-1001"), ("emp-1001/F000004.png", "emp-1001")]);
    assert_eq!(found(&Plan::of(dir.path(), None).unwrap(), dir.path()), expected);
}

#[test]
fn what_is_passed_over_is_counted_and_named() {
    let dir = folder(&[
        "amy_1.HEIC",
        "amy_2.jfif",
        "amy_3.JPE",
        "amy_4.png",
        "._amy_4.png",
        ".DS_Store",
        "README",
        "b/x.tif",
    ]);
    let plan = Plan::of(dir.path(), None).unwrap();
    let expected = pairs(&[("amy_2.jfif", "amy"), ("amy_3.JPE", "amy"), ("amy_4.png", "amy")]);
    assert_eq!(found(&plan, dir.path()), expected);
    let PassedOver { extensions, hidden, elsewhere } = plan.passed_over;
    assert_eq!((hidden, elsewhere), (2, 0));
    let counted: Vec<_> = extensions.iter().map(|(extension, count)| (extension.as_str(), *count)).collect();
    assert_eq!(counted, [("heic", 1), ("none", 1), ("tif", 1)]);
}

#[test]
fn a_link_enrols_nothing_twice() {
    let dir = folder(&["anna/1.png", "bella/2.png", "carl.png"]);
    let root = dir.path();
    symlink(".", root.join("loop")).unwrap();
    symlink("anna", root.join("a-link")).unwrap();
    symlink("carl.png", root.join("carl_1.png")).unwrap();
    symlink("nowhere.png", root.join("broken.png")).unwrap();
    symlink("1.png", root.join("anna/again.png")).unwrap();
    fs::hard_link(root.join("bella/2.png"), root.join("bella/3.png")).unwrap();
    let outside = folder(&["dora/3.png"]);
    symlink(outside.path().join("dora"), root.join("dora")).unwrap();
    let plan = Plan::of(root, None).unwrap();
    let expected =
        pairs(&[("anna/1.png", "anna"), ("bella/2.png", "bella"), ("carl.png", "carl"), ("dora/3.png", "dora")]);
    assert_eq!(found(&plan, root), expected);
    assert_eq!(plan.passed_over.elsewhere, 5, "{:?}", plan.passed_over);
    // A link that leads nowhere is no file of another kind that was passed over.
    assert!(plan.passed_over.extensions.is_empty(), "{:?}", plan.passed_over);
    let refused: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    assert!(refused.len() == 1 && refused[0].contains("broken.png: expected a file"), "{refused:?}");
}

#[test]
fn one_photo_is_enrolled_for_one_subject() {
    // The link comes first, or last.
    for (link, photo) in [("aaa/1.png", "bella/2.png"), ("carl/1.png", "bella/2.png")] {
        let dir = folder(&[photo, "anna/3.png"]);
        let root = dir.path();
        fs::create_dir_all(root.join(link).parent().unwrap()).unwrap();
        symlink(root.join(photo), root.join(link)).unwrap();
        let plan = Plan::of(root, None).unwrap();
        assert_eq!(found(&plan, root), pairs(&[("anna/3.png", "anna")]));
        assert_eq!(plan.refused.len(), 2, "{:?}", plan.refused);
        for refused in &plan.refused {
            let both = [link, photo].iter().all(|name| refused.reason.contains(name));
            assert!(both && refused.reason.contains("one photo of two subjects"), "{refused}");
        }
    }
    let dir = folder(&["x.png", "y.png"]);
    let list = dir.path().join("list.csv");
    fs::write(&list, "file,subject\nx.png,anna\ny.png,bella\n./x.png,bella\ny.png,bella\n").unwrap();
    let plan = Plan::of(&list, None).unwrap();
    assert_eq!(found(&plan, dir.path()), pairs(&[("y.png", "bella")]));
    assert_eq!((plan.refused.len(), plan.passed_over.elsewhere), (2, 1));
    assert!(plan.refused[0].reason.contains("anna (") && plan.refused[0].reason.contains("bella ("), "{plan:?}");
}

#[test]
fn a_rule_that_does_not_fit_is_refused_with_the_files() {
    let refused = |files: &[&str], from| {
        let dir = folder(files);
        Plan::of(dir.path(), Some(from)).unwrap_err().to_string()
    };
    let flat = refused(&["a.png", "b.png", "carl/c.png"], SubjectFrom::Folder);
    assert!(
        flat.contains("SUBJECT/any.png") && flat.contains("\n  a.png\n  b.png") && !flat.contains("c.png"),
        "{flat}"
    );
    let stems = refused(&["anna/1.png", "bella/1.png", "bella/2.png"], SubjectFrom::Stem);
    assert!(stems.contains("one subject of images in different folders") && stems.contains("\n  1: "), "{stems}");
    assert!(stems.contains("anna/1.png") && stems.contains("bella/1.png") && !stems.contains("2.png"), "{stems}");
    let names = refused(&["anna/img_1.png", "bella/img_2.png"], SubjectFrom::Name);
    assert!(names.contains("\n  img: "), "{names}");
    // Where it fits, it fits.
    let dir = folder(&["anna/1.png", "bella/1.png"]);
    let expected = pairs(&[("anna/1.png", "anna"), ("bella/1.png", "bella")]);
    assert_eq!(found(&Plan::of(dir.path(), Some(SubjectFrom::Folder)).unwrap(), dir.path()), expected);
}

#[test]
fn a_name_in_an_error_makes_a_terminal_do_nothing() {
    let dir = folder(&["a\u{1b}[2J7.png", "b\n8.png"]);
    let refused = Plan::of(dir.path(), None).unwrap_err().to_string();
    assert!(refused.contains("a\\u{1b}[2J7.png: subject a\\u{1b}[2J with") && !refused.contains('\u{1b}'), "{refused}");
    assert!(refused.contains("\n  b\\u{a}8.png: "), "{refused}");
}

#[test]
fn a_list_says_whose_each_file_is() {
    let dir = folder(&["x/F000003.png", "x/F000005.png", "x/scan.bin"]);
    let list = dir.path().join("list.csv");
    let of = |text: &str, from| {
        fs::write(&list, text).unwrap();
        Plan::of(&list, from)
    };
    let plan = of(
        "file,subject\nx/F000003.png,emp-1\nx/F000005.png, emp-2\nx/scan.bin,emp-1\nx/none.png,emp-3\nx/F000003.png,a b\n",
        None,
    );
    let plan = plan.unwrap();
    let expected = pairs(&[("x/F000003.png", "emp-1"), ("x/F000005.png", "emp-2"), ("x/scan.bin", "emp-1")]);
    assert_eq!((found(&plan, dir.path()), plan.refused.len()), (expected, 2));
    for text in ["subject,file\na,b\n", "", "file,subject\nonly-one\n", "file,subject,more\na,b,c\n"] {
        assert!(of(text, None).unwrap_err().to_string().contains("file,subject"), "{text:?}");
    }
    assert!(of("file,subject\n", Some(SubjectFrom::Name)).is_err());
}

#[test]
fn a_reference_id_depends_on_all_and_on_nothing_else() {
    let (gallery, anna) = (GalleryName::new("g").unwrap(), SubjectId::new("anna").unwrap());
    let id = reference_id(&gallery, &anna, b"file");
    assert_eq!(id, reference_id(&gallery, &anna, b"file"));
    assert_ne!(id, reference_id(&gallery, &anna, b"filf"));
    assert_ne!(id, reference_id(&gallery, &SubjectId::new("ann").unwrap(), b"file"));
    assert_ne!(id, reference_id(&GalleryName::new("ga").unwrap(), &anna, b"file"));
    assert_eq!(&id.to_string()[14..15], "8");
}
