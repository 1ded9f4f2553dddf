//! A run with adapters reads the weights of its base once in a process, whatever the number of iterations and of stages
//! at once. Through the real store and executor; only the contents handed to stages are replaced by ones that count.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use agrpo_compute::{Device, Resources, Threads};
use agrpo_fleet::local::Local;
use agrpo_programs::Programs;
use agrpo_spec::{
    Artifact, ArtifactDigest, Content, Environment, ExecuteFn, Inputs, Run, StageKind, StageSpec,
    Windows,
};
use agrpo_store::Store;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::support::program::RUN;

const WEIGHTS: &str = "model.safetensors";

/// Bytes that stages read of each weights file, by its digest.
type Read = Arc<Mutex<BTreeMap<ArtifactDigest, u64>>>;

#[derive(Debug)]
struct Counted {
    content: Content,
    digest: ArtifactDigest,
    read: Read,
}

impl Windows for Counted {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn digest(&self) -> Option<ArtifactDigest> {
        Some(self.digest)
    }

    fn window(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        *self.read.lock().unwrap().entry(self.digest).or_default() += range.end - range.start;
        self.content.window(range)
    }
}

/// The inputs of a stage, with weights that count, and these weights as they were.
fn counted(spec: &StageSpec, inputs: &Inputs, read: &Read) -> (Inputs, Vec<Content>) {
    let (mut all, mut weights) = (Inputs::default(), vec![]);
    for (_, digest) in spec.inputs() {
        let artifact = match inputs.folder(digest) {
            Ok(files) => {
                let mut files = files.clone();
                let content = files[WEIGHTS].clone();
                weights.push(content.clone());
                let digest = content.digest().unwrap();
                let counted = Counted { content, digest, read: Arc::clone(read) };
                files.insert(WEIGHTS.to_owned(), Content::Elsewhere(Arc::new(counted)));
                Artifact::Folder(files)
            }
            Err(_) => Artifact::Blob(inputs.content(digest).unwrap().clone()),
        };
        all.insert(digest, artifact);
    }
    (all, weights)
}

/// The stages of the program, with inputs that count what reinforcement learning reads.
fn counting(read: &Read) -> ExecuteFn {
    let scorer = Arc::new(Programs::new(""));
    let execute = agrpo_compute::execute_with(Device::Cpu, Resources::of(Threads::one()), scorer);
    let read = Arc::clone(read);
    Arc::new(move |spec, inputs| {
        if spec.kind() == StageKind::Sft {
            return execute(spec, inputs);
        }
        let (inputs, weights) = counted(spec, inputs, &read);
        let mut outputs = execute(spec, &inputs)?;
        // What an update hands on of its base is the store's content again.
        if let (Some(Artifact::Folder(files)), [base]) =
            (outputs.artifacts.get_mut("policy"), &weights[..])
        {
            files.insert(WEIGHTS.to_owned(), base.clone());
        }
        Ok(outputs)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_iterations_read_their_base_once() {
    agrpo_compute::use_one_thread();
    for (name, workers) in [("alone", 1), ("side-by-side", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
        let text = RUN.replace("iterations = 4", "iterations = 10").replace("bytes", name);
        let run =
            Run::parse(&format!("{text}\n[lora]\nrank = 2\nalpha = 4.0\nhead = true\n")).unwrap();
        let read = Read::default();
        let local = Local {
            store: store.clone(),
            execute: counting(&read),
            workers,
            environment: Environment {
                worker: "test".into(),
                threads: 1,
                ..Environment::default()
            },
            clock: Arc::new(|| 1),
            log_tail: Arc::new(|_| vec![]),
        };
        let (events, _happened) = mpsc::unbounded_channel();
        let (_stop, stopped) = watch::channel(false);
        let ended = local.run(run, false, events, stopped).await.unwrap();
        assert!(ended.done);
        let policy = store.cas.load_folder(ended.policy.unwrap()).await.unwrap();
        let base = &policy[WEIGHTS];
        assert_eq!(
            *read.lock().unwrap(),
            BTreeMap::from([(base.digest().unwrap(), base.size())]),
            "{workers} stages at once"
        );
    }
}
