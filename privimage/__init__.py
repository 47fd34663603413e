"""Synthetic images with a differential-privacy guarantee, by semantic-aware pretraining (PrivImage).

Verbs are stages, each run by one rule of the workflow as ``python -m privimage.<stage>``:

    download     a published set's site          -> its files, checked
    shard        one part of any image source    -> squares of one size, and what is wrong with the others
    preprocess   all shards of a source          -> two image sets (HDF5)
    classifier   public images                   -> the semantic query function
    query        sensitive images + classifier   -> a noisy histogram                      (spends privacy)
    select       the histogram                   -> public classes for each sensitive class
    pretrain     the selected public images      -> a class-conditional generator
    finetune     sensitive images + model        -> the private model, its privacy cost    (spends privacy)
    sample       the private model               -> synthetic images
    features     real images                     -> what a feature network sees in them    (not private)
    quality      synthetic images, real features -> distances, precision, recall, ...      (not private)
    accuracy     synthetic and real images       -> classification accuracy                (not private)
    semantics    selected classes, real images   -> do they mean the same?                 (not private)
    memorisation synthetic, train, test images   -> are copies among them?                 (not private)
    membership   the private model, real images  -> does its loss tell who was in?         (not private)
    audit        the mechanism, with canaries    -> how many of them can be found?         (not private)
    statements   all privacy statements of a set -> one file, for the cards
    release      what may leave, of one model       -> a folder to hand out
    report       everything above                -> one page to release, one for the owner
    tabulate     measurements of releases        -> one table, and a picture               (not private)

Nouns are parts, which know nothing of stages:

    config       the settings, typed; the JSON schema and the reference are generated from it
    methods      the table of methods: which public data each one uses, and what it releases
    ablations    settings that vary, as further rows of that table
    generators/  what a method trains and draws from, a module a kind: where parts below meet privacy
    networks     the table of feature networks: through whose eyes images are compared
    artifacts    the files that stages hand to each other, one class a file
    measurements the files of measuring stages; `feature_sets`: what a network saw in a set of images
    shards       the file between the readers of a source and the one that joins what they read
    check_data   `privimage check-data`: what is wrong with a set of images
    status       `privimage status`: what of a run is done, and how far the rest is; by `heartbeat`
    checkpoints  what lets a long stage resume
    private_training  the DP-SGD loop on the diffusion model; `private_gan_training`: on a GAN's discriminator
    compute      the device, precision and compilation; with `memory`, how many images at once
    launch       starts a stage, in one process or several; `gpus`: on which GPUs
    distributed  what the processes of one stage tell each other; `ranks`: which of them leads
    data/        readers of image sources; the only place that knows a data set's name
    classifiers/ networks that classify, and how they are trained
    diffusion/   the diffusion model: network, denoiser, loss, sampler (knows nothing of privacy)
    gan/         generator and discriminator, and their training (knows nothing of privacy)
    evolution/   Private Evolution: candidates, votes, children
    privacy/     mechanisms, accounting, ledger, DP-SGD (knows nothing of diffusion)
    metrics/     feature networks, and distances between what they see
    releasing/   the formats of a release, its card, and the list of what may be in it
    reporting/   figures and the page template
"""

__version__ = "0.1.0"
