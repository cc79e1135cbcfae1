# From DICOM slices to a scored submission. `make submission` does all of it from a fresh clone; `make help` says more.

DATASET ?= phantom

# These are said on the command line or not at all: an environment may well have a NAME of its own.
$(foreach variable,NAME SET SEED FOLD FORCE,$(if $(filter environment,$(origin $(variable))),$(eval $(variable) :=)))

# What plans a run before anything is installed, and makes .venv: any Python from 3.11 on.
BARE_PYTHON ?= python3
# An environment of the user's own (PYTHON=...) is used as it is; otherwise .venv is made from requirements.txt.
ifndef PYTHON
PYTHON := .venv/bin/python
VENV   := .venv/installed
endif

# Only what was given is passed on; the defaults stand once, in pipeline/__main__.py and in the recipes.
option = $(if $($(1)),--$(2) "$($(1))")
ARGUMENTS := --dataset "$(DATASET)" $(strip $(call option,RECIPE,recipe) $(call option,READER,reader) \
  $(call option,NAME,name) $(call option,SEED,seed) $(call option,FOLDS,folds) $(call option,THREADS,threads) \
  $(call option,N_JOBS,n-jobs) $(call option,MAX_REJECTED,max-rejected) $(call option,PHANTOM_SCANS,phantom-scans) \
  $(call option,PHANTOM_SEED,phantom-seed) $(if $(SET),--set $(foreach change,$(SET),"$(change)")))
RUN_STAGE = $(PYTHON) -m pipeline $(1) $(ARGUMENTS) $(if $(filter 1,$(FORCE)),--force)

# The run's file names, and who owns them, are computed once, here, by pipeline/plan.py: CNN, REDUCED, CSV, ...
# A settings file's name carries the digest of the settings, so that a changed setting is a missing file.
ifneq ($(filter-out help test torture bench bench-full .venv,$(or $(MAKECMDGOALS),submission)),)
  ifneq ($(shell $(BARE_PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))'),True)
    $(error $(BARE_PYTHON) is not Python 3.11 or later: install one, or name one with BARE_PYTHON=)
  endif
  # One make at a time works on a data set: this one, or the one that called it. Looking, and dry runs, disturb nobody.
  LOOKING := $(findstring n,$(firstword -$(MAKEFLAGS)))$(filter status verify leaderboard readers tables,$(MAKECMDGOALS))
  export PIPELINE_MAKE_PID := $(or $(PIPELINE_MAKE_PID),$(shell echo $$PPID))
  PLAN := $(shell $(BARE_PYTHON) -B -m pipeline plan $(ARGUMENTS) $(if $(FOLD),--fold "$(FOLD)") \
            $(if $(LOOKING),,--make-pid $(PIPELINE_MAKE_PID)))
  ifneq ($(.SHELLSTATUS),0)
    $(error no plan for this run: see the line above)
  endif
  $(foreach word,$(PLAN),$(eval $(word)))
endif
comma  := ,
FOLDS_OF_RUN  := $(subst $(comma), ,$(FOLD_LIST))
FOLDS_AT_HAND := $(or $(FOLD),$(FOLDS_OF_RUN))
ALL_FOLDS     := $(sort $(FOLD) $(FOLDS_OF_RUN))
INCOMPLETE    := $(subst $(comma), ,$(INCOMPLETE))
TABLE_RECIPES := $(subst $(comma), ,$(TABLE_RECIPES))
SYSTEM_RECIPES := $(subst $(comma), ,$(SYSTEM_RECIPES))

.PHONY: submission test torture bench bench-full .venv help clean status verify leaderboard readers tables systems system-row ablation table-row \
  FORCED phantom index split window train embed reduce sequence endtoend predict score submit
.SUFFIXES:

# ---------------------------------------------------------------------------------------------------- the two commands

# A system that does not give six probabilities a slice ends at the leaderboard.
submission: $(SUBMISSION) submissions/leaderboard.csv
	@$(if $(SUBMISSION),,echo "$(RUN) does not give six probabilities a slice: no $(CSV); its figures: make leaderboard")

test: $(VENV)
	$(PYTHON) -m pytest -n 2 --dist loadfile

# 105 kills of stages, 15 of each of seven, and up to six of make itself.
torture: | $(VENV)
	$(PYTHON) -m pytest -n 2 tests/test_kills.py -m "torture or not torture" --kills 15

bench: | $(VENV)
	$(PYTHON) -m benchmarks

# The rows of the same table that would not fit into twenty minutes on two cores with the others.
bench-full: | $(VENV)
	$(PYTHON) -m benchmarks --slow

# ------------------------------------------------------------------- the graph: what each stage reads, what it leaves

ifeq ($(DATASET),phantom)
RAW := $(LABELS)
$(LABELS): $(PHANTOM_SETTINGS) | $(VENV)
	$(call RUN_STAGE,phantom)
else
RAW := $(LABELS) $(SAMPLE)
$(RAW):
	@echo "error: $@ is missing: put the data set, or a symbolic link to it, at data/$(DATASET)/raw" >&2; exit 2
endif

$(INDEX_RECORD): $(RAW) $(INDEX_SETTINGS) | $(VENV)
	$(call RUN_STAGE,index)

# The index leaves SLICES alone where it finds the same: a label CSV that was only touched makes nothing else stale.
# A dry run takes SLICES for changed, unless the line begins with +: then it looks at the file itself.
$(SLICES): $(if $(filter fresh,$(INDEX_STATE)),|) $(INDEX_RECORD) ; $(if $(filter touched,$(INDEX_STATE)),+)@:

$(FOLDS_TABLE): $(SLICES) $(SPLIT_SETTINGS) | $(VENV)
	$(call RUN_STAGE,split)

$(IMAGES): $(SLICES) $(WINDOW_SETTINGS) | $(VENV)
	$(call RUN_STAGE,window)

$(ALL_FOLDS:%=$(CNN)): $(CNN): $(IMAGES) $(FOLDS_TABLE) $(TRAIN_SETTINGS) | $(VENV)
	$(call RUN_STAGE,train) --fold $*

$(ALL_FOLDS:%=$(EMBEDDINGS)): $(EMBEDDINGS): $(CNN) $(EMBED_SETTINGS) | $(VENV)
	$(call RUN_STAGE,embed) --fold $*

$(ALL_FOLDS:%=$(REDUCED)): $(REDUCED): $(EMBEDDINGS) $(REDUCE_SETTINGS) | $(VENV)
	$(call RUN_STAGE,reduce) --fold $*

$(ALL_FOLDS:%=$(SEQUENCE)): $(SEQUENCE): $(REDUCED) $(SEQUENCE_SETTINGS) | $(VENV)
	$(call RUN_STAGE,sequence) --fold $*

$(ALL_FOLDS:%=$(ENDTOEND)): $(ENDTOEND): $(SEQUENCE) $(ENDTOEND_SETTINGS) | $(VENV)
	$(call RUN_STAGE,endtoend) --fold $*

# LAST_MODEL is ENDTOEND, SEQUENCE, EMBEDDINGS for a recipe that ends with its slice classifier, or CNN for one whose
# network is trained in one piece.
$(ALL_FOLDS:%=$(PREDICTIONS)): $(PREDICTIONS): $(LAST_MODEL) $(PREDICT_SETTINGS) | $(VENV)
	$(call RUN_STAGE,predict) --fold $*

$(ALL_FOLDS:%=$(FOLD_SCORE)): $(FOLD_SCORE): $(PREDICTIONS) $(SCORE_SETTINGS) | $(VENV)
	$(call RUN_STAGE,score) --fold $*

$(OOF_SCORE): $(FOLDS_OF_RUN:%=$(PREDICTIONS)) $(SCORE_SETTINGS) | $(VENV)
	$(call RUN_STAGE,score)

submissions/leaderboard.csv: $(FOLDS_OF_RUN:%=$(FOLD_SCORE)) $(OOF_SCORE) | $(VENV)
	$(call RUN_STAGE,leaderboard)

$(CSV): $(FOLDS_OF_RUN:%=$(PREDICTIONS)) $(SUBMIT_SETTINGS) | $(VENV)
	$(call RUN_STAGE,submit)

$(PHANTOM_SETTINGS) $(INDEX_SETTINGS) $(SPLIT_SETTINGS) $(WINDOW_SETTINGS) $(TRAIN_SETTINGS) $(EMBED_SETTINGS) \
  $(REDUCE_SETTINGS) $(SEQUENCE_SETTINGS) $(ENDTOEND_SETTINGS) $(PREDICT_SETTINGS) $(SCORE_SETTINGS) $(SUBMIT_SETTINGS):
	@$(BARE_PYTHON) -B -m pipeline settings --file $@ $(ARGUMENTS)

# An artefact whose companion (a record, a table of rejected files, ...) was deleted is made again.
$(INCOMPLETE): FORCED

.venv/installed: requirements.txt
	$(BARE_PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	@touch $@

# ------------------------------------------------------------------- stages by name; FORCE=1 redoes the named one alone

FILES_phantom  := $(LABELS)
FILES_index    := $(INDEX_RECORD)
FILES_split    := $(FOLDS_TABLE)
FILES_window   := $(IMAGES)
FILES_train    := $(FOLDS_AT_HAND:%=$(CNN))
FILES_embed    := $(FOLDS_AT_HAND:%=$(EMBEDDINGS))
FILES_reduce   := $(FOLDS_AT_HAND:%=$(REDUCED))
FILES_sequence := $(FOLDS_AT_HAND:%=$(SEQUENCE))
FILES_endtoend := $(FOLDS_AT_HAND:%=$(ENDTOEND))
FILES_predict  := $(FOLDS_AT_HAND:%=$(PREDICTIONS))
FILES_score    := $(FOLDS_AT_HAND:%=$(FOLD_SCORE)) $(if $(FOLD),,$(OOF_SCORE))
FILES_submit   := $(CSV)

phantom:  $(FILES_phantom)
index:    $(FILES_index)
split:    $(FILES_split)
window:   $(FILES_window)
train:    $(FILES_train)
embed:    $(FILES_embed)
reduce:   $(FILES_reduce)
sequence: $(FILES_sequence)
endtoend: $(FILES_endtoend)
predict:  $(FILES_predict)
score:    $(FILES_score)
submit:   $(FILES_submit)
.venv:    .venv/installed

table-row: $(SUBMISSION) $(OOF_SCORE)

system-row: $(FOLDS_OF_RUN:%=$(FOLD_SCORE)) $(OOF_SCORE)

ifeq ($(FORCE),1)
$(foreach goal,$(MAKECMDGOALS),$(if $(FILES_$(goal)),$(eval $(FILES_$(goal)): FORCED)))
$(if $(filter index,$(MAKECMDGOALS)),$(SLICES): $(INDEX_RECORD))
endif

# -------------------------------------------------------------------------------------------------- looking, cleaning

leaderboard: | $(VENV)
	@$(call RUN_STAGE,leaderboard)

# What human readers said of scans, beside what the run says of them; nothing is made for it, nothing left.
readers: | $(VENV)
	@$(call RUN_STAGE,readers) $(call option,READERS,readers)

# The paper's tables of figures; runs that were not predicted leave their columns empty.
tables: | $(VENV)
	@$(call RUN_STAGE,tables)

# Each system is a run of its own; they share the data set's tables and folds.
# Networks of this size gain little by a second thread: the folds train side by side instead.
SIDE_BY_SIDE = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell getconf _NPROCESSORS_ONLN)) $(if $(THREADS),,THREADS=1)

systems: | $(VENV)
	@$(if $(NAME),echo "error: NAME=$(NAME): names one run$(comma) systems are many; leave it out" >&2; exit 2)
	@$(foreach recipe,$(SYSTEM_RECIPES),$(MAKE) $(SIDE_BY_SIDE) --no-print-directory system-row RECIPE=$(recipe) &&) true
	@$(call RUN_STAGE,leaderboard) >/dev/null
	@$(call RUN_STAGE,systems)

# Each row of the paper's table is a run of its own; they share what their settings share.
ablation: | $(VENV)
	@$(if $(NAME),echo "error: NAME=$(NAME): names one run$(comma) a table has many; leave it out" >&2; exit 2)
	@$(foreach recipe,$(TABLE_RECIPES),$(MAKE) --no-print-directory table-row RECIPE=$(recipe) &&) true
	@$(call RUN_STAGE,leaderboard) >/dev/null
	@$(call RUN_STAGE,ablation)

status: | $(VENV)
	@$(call RUN_STAGE,status)

verify: | $(VENV)
	@$(call RUN_STAGE,verify)

# Artefacts of DATASET, or of one run where it was named; never raw/ of a real data set, never .venv.
clean:
ifneq ($(RECIPE)$(SET)$(NAME)$(filter-out 0,$(SEED)),)
	rm -rf $(addsuffix /$(DATASET)/$(RUN),models features submissions)
	rm -f $(addprefix submissions/$(DATASET)/$(RUN),.csv .json)
else
	rm -rf $(addsuffix /$(DATASET),models features submissions)
	rm -rf data/$(DATASET)/*.parquet data/$(DATASET)/*.json data/$(DATASET)/png
	$(if $(filter phantom,$(DATASET)),rm -rf data/phantom/raw)
endif

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

#: make submission   everything from a fresh clone: .venv, data set, training, submission, leaderboard
#: make test         the tests, from a fresh clone too
#: make torture      kill stages at random moments a hundred times and see that nothing comes of it
#: make bench        each stage beside the straightforward way, and at RSNA's full size, into benchmarks/results/ and README
#: make bench-full   the rest of it, which takes longer: memory at 100,000 slices
#: make STAGE        one stage and what it needs: phantom index split window train embed reduce sequence endtoend predict score submit
#: make leaderboard  rebuild submissions/leaderboard.csv and print it, best first
#: make ablation     run all variants of the recipe and print its paper's table with our figures beside it
#: make systems      train all published systems at a size that two cores manage, and print them in one table
#: make tables       the paper's other tables, our figures of the runs that are there beside the published ones
#: make readers READERS=FILE.csv   human readers and the run's models on the same scans, beside the paper's reader study
#: make status       each artefact of the run: fresh, stale and why, or missing
#: make verify       compute all digests of the run again and name what was changed behind the pipeline's back
#: make clean        remove artefacts of DATASET (and RECIPE, if given); never raw/ of a real data set, never .venv
#: make -n ...       say what would be done; make -jN runs folds side by side
#:
#: DATASET=phantom   the folder data/DATASET; its raw/ holds DICOM files and label CSVs in RSNA's layout
#: RECIPE=           quickstart for the phantom, burduja2020 otherwise; see pipeline/recipes/
#: FOLD=K            one fold, for train embed reduce sequence endtoend predict score
#: FOLDS="0 1"       folds that are trained and averaged (default: the recipe's)
#: SET="train.epochs=1 sequence.hidden=128"   a run of its own beside the recipe's; NAME= names it
#: SEED=0            seed of training; another one makes a run of its own
#: READER=           how raw/ is read (default: rsna)
#: FORCE=1           with a STAGE: redo it even if it is up to date
#: N_JOBS= THREADS=2 MAX_REJECTED=0.05 PHANTOM_SCANS=144 PHANTOM_SEED=0 PYTHON= (an environment of your own)
